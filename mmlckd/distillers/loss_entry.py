"""One entry of a distiller's ``losses``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmlckd.losses import DistillationLoss
from mmlckd.taps import FeatureTap, Tap

from .entry_parts import both_sides, build_loss, choose_teacher
from .frozen_teacher import FrozenTeacher
from .views import choose_views

OPTIONS = dict(connectors=False, max_share=None, views=None)


@dataclass
class LossEntry:
    """A loss, the teacher and the taps it compares, and the connectors between them (None: maps as they are).

    Losses that keep the contract of :class:`mmlckd.losses.DistillationLoss` and plain modules, called as
    ``loss(student_feats, teacher_feats)``, look alike from here on.
    """

    name: str
    loss: nn.Module
    teacher: str
    student_taps: list[Tap]
    teacher_taps: list[Tap]
    connectors: list[str] | None
    max_share: float | None
    views: str = 'first'

    @classmethod
    def build(
        cls, name: str, cfg: dict, taps: Any, student: nn.Module, teachers: Mapping[str, FrozenTeacher]
    ) -> LossEntry:
        """An entry of its config.

        Args:
            name: Its name in ``losses``.
            cfg: The loss's own config, with any of ``taps``, ``connectors``, ``max_share``, ``views`` and ``teacher``.
            taps: Taps for an entry that has none.
            student, teachers: The networks to compare.

        Raises:
            ValueError: A field is wrong; the message names it.
        """
        cfg = dict(cfg)
        spec = cfg.pop('taps', taps)
        connectors, max_share, views = (cfg.pop(key, default) for key, default in OPTIONS.items())
        teacher = choose_teacher(name, cfg.pop('teacher', None), teachers)
        if max_share is not None and not 0 < max_share < 1:
            raise ValueError(f'losses.{name}.max_share is {max_share!r}: give a part of the total between 0 and 1')
        student_taps, teacher_taps = both_sides(name, spec, student, teachers[teacher])
        loss = build_loss(name, cfg)
        views = choose_views(name, loss, views)
        entry = cls(name, loss, teacher, student_taps, teacher_taps, None, max_share, views)
        if connectors:
            entry.connectors = [_connector_key(*pair) for pair in entry.joined]
        if isinstance(loss, DistillationLoss):
            loss.attach(teachers[teacher].model, teacher_taps)
        return entry

    def check_channels(self, teacher_channels: Sequence[int]) -> None:
        """Let the loss see the channels of the teacher's maps before training.

        Raises:
            ValueError: They do not fit the loss.
        """
        if isinstance(self.loss, DistillationLoss):
            try:
                self.loss.check_channels(teacher_channels)
            except ValueError as error:
                raise ValueError(f'losses.{self.name}.{error}') from error

    def warnings(self, student_shapes: Sequence[Sequence[int]]) -> list[str]:
        """What the user should know of student maps of these shapes."""
        if not isinstance(self.loss, DistillationLoss):
            return []
        names = [str(tap) for tap in self.student_taps]
        return [f'losses.{self.name}: {warning}' for warning in self.loss.warnings(names, student_shapes)]

    @property
    def joined(self) -> list[tuple[str, str, str]]:
        """What connectors would join: the teacher's name, and the student's and the teacher's tap, of each pair."""
        pairs = zip(self.student_taps, self.teacher_taps)
        return [(self.teacher, student.key, teacher.key) for student, teacher in pairs]

    @property
    def places(self) -> list[tuple[str, str, Tap]]:
        """Of each connected map its connector, views and tap: a connector may serve several grids of one's tokens."""
        return [(key, self.views, tap) for key, tap in zip(self.connectors or (), self.student_taps)]

    @property
    def key(self) -> str:
        """The name of this loss in the log."""
        return f'distiller.loss_{self.name}'

    @property
    def streams(self) -> bool:
        """Whether the loss takes maps early and not formed: said by the class that has its ``compare``."""
        owner = next((kind for kind in type(self.loss).__mro__ if 'compare' in vars(kind)), None)
        return owner is not None and vars(owner).get('streams', False)

    @property
    def left_out(self) -> int:
        """How many samples had no part in the loss since :meth:`reset_left_out`."""
        return int(self.loss.left_out) if isinstance(self.loss, DistillationLoss) else 0

    def reset_left_out(self) -> None:
        if isinstance(self.loss, DistillationLoss):
            self.loss.left_out = 0

    def looked_at(self, feats: Sequence[FeatureTap]) -> Sequence[FeatureTap]:
        """Those of the first and second view that this loss compares."""
        return dict(first=feats[:1], second=feats[1:], both=feats)[self.views]

    def select(self, feats: Sequence[FeatureTap], taps: Sequence[Tap]) -> list[Tensor]:
        """The maps at some taps in the views that this loss compares; ``feats`` are of the first and second view."""
        if self.views == 'both':
            return [torch.cat([view[tap] for view in feats]) for tap in taps]
        (view,) = self.looked_at(feats)
        return [view[tap] for tap in taps]

    def see_views(self, input_change: Tensor) -> None:
        if isinstance(self.loss, DistillationLoss):
            self.loss.see_views(input_change)

    def statistics(self) -> dict[str, Tensor]:
        return self.loss.statistics() if isinstance(self.loss, DistillationLoss) else {}

    def targets(self, teacher_feats: Sequence[Tensor], data_samples: Sequence | None) -> Any:
        if isinstance(self.loss, DistillationLoss):
            # The labels are those of the first view: a loss that reads them cannot look at the second.
            return self.loss.targets(teacher_feats, data_samples if self.views == 'first' else None)
        return teacher_feats

    def compare(self, student_feats: Sequence, targets: Any) -> Tensor:
        if isinstance(self.loss, DistillationLoss):
            value = self.loss.compare(student_feats, targets)
        else:
            value = self.loss(student_feats, targets)
        if not isinstance(value, Tensor) or value.numel() != 1:
            found = f'a tensor {tuple(value.shape)}' if isinstance(value, Tensor) else f'a {type(value).__name__}'
            raise ValueError(
                f'losses.{self.name} is a {type(self.loss).__name__}, which returns {found} where one number is '
                "needed: let it return a scalar, for example by reduction='mean'"
            )
        return value


def name_connectors(entries: Sequence[LossEntry]) -> None:
    """Tell connectors apart whose names meet.

    Names have underscores where paths have dots, so ``a.b_c`` and ``a_b.c`` meet. Those that meet have slashes instead.
    """
    named: dict[str, set[tuple[str, str, str]]] = {}
    for entry in entries:
        for key, joined in zip(entry.connectors or (), entry.joined):
            named.setdefault(key, set()).add(joined)
    for entry in entries:
        if entry.connectors is not None:
            entry.connectors = [
                key if len(named[key]) == 1 else _connector_key(*joined, dot='/')
                for key, joined in zip(entry.connectors, entry.joined)
            ]


def _connector_key(name: str, student: str, teacher: str, dot: str = '_') -> str:
    """A connector's name in checkpoints. It is a format: files of every version are found by it."""
    prefix = '' if name == 'teacher' else f'{name}--'
    return prefix + f'{student}--{teacher}'.replace('.', dot)
