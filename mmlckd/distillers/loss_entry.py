"""One entry of a distiller's ``losses``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmlckd.losses import DistillationLoss
from mmlckd.taps import FeatureTap, Tap


@dataclass
class LossEntry:
    """A loss, the taps it compares, and the connectors between them (None: maps as they are).

    Losses that keep the contract of :class:`mmlckd.losses.DistillationLoss` and plain modules, called as
    ``loss(student_feats, teacher_feats)``, look alike from here on.
    """

    name: str
    loss: nn.Module
    student_taps: list[Tap]
    teacher_taps: list[Tap]
    connectors: list[str] | None
    max_share: float | None
    views: str = 'first'

    @property
    def key(self) -> str:
        """The name of this loss in the log."""
        return f'distiller.loss_{self.name}'

    @property
    def left_out(self) -> int:
        """How many samples had no part in the loss since :meth:`reset_left_out`."""
        return int(self.loss.left_out) if isinstance(self.loss, DistillationLoss) else 0

    def reset_left_out(self) -> None:
        if isinstance(self.loss, DistillationLoss):
            self.loss.left_out = 0

    def statistics(self) -> dict[str, Tensor]:
        return self.loss.statistics() if isinstance(self.loss, DistillationLoss) else {}

    def select(self, feats: Sequence[FeatureTap], taps: Sequence[Tap]) -> list[Tensor]:
        """The maps at some taps in the views that this loss compares."""
        if self.views != 'both':
            return [feats[self.views == 'second'][tap] for tap in taps]
        return [torch.cat([view[tap] for view in feats]) for tap in taps]

    def see_views(self, input_change: Tensor) -> None:
        if isinstance(self.loss, DistillationLoss):
            self.loss.see_views(input_change)

    def attach(self, teacher: nn.Module) -> None:
        if isinstance(self.loss, DistillationLoss):
            self.loss.attach(teacher, self.teacher_taps)

    def targets(self, teacher_feats: Sequence[Tensor], data_samples: Sequence | None) -> Any:
        if isinstance(self.loss, DistillationLoss):
            return self.loss.targets(teacher_feats, data_samples)
        return teacher_feats

    def compare(self, student_feats: Sequence[Tensor], targets: Any) -> Tensor:
        if isinstance(self.loss, DistillationLoss):
            return self.loss.compare(student_feats, targets)
        return self.loss(student_feats, targets)
