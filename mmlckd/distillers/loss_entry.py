"""One entry of a distiller's ``losses``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmlckd.losses import DistillationLoss
from mmlckd.registry import MODELS
from mmlckd.taps import OUTPUTS, FeatureTap, Tap, auto_pairs, output_pairs, parse_taps

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
        teacher = _choose_teacher(name, cfg.pop('teacher', None), teachers)
        if max_share is not None and not 0 < max_share < 1:
            raise ValueError(f'losses.{name}.max_share is {max_share!r}: give a part of the total between 0 and 1')
        student_taps, teacher_taps = _both_sides(name, spec, student, teachers[teacher])
        try:
            loss = MODELS.build(cfg)
        except ValueError as error:  # it begins with the field
            raise ValueError(f'losses.{name}.{error}') from error
        keys = None
        if connectors:
            prefix = '' if teacher == 'teacher' else f'{teacher}--'
            keys = [prefix + _connector_key(*pair) for pair in zip(student_taps, teacher_taps)]
        views = choose_views(name, loss, views)
        entry = cls(name, loss, teacher, student_taps, teacher_taps, keys, max_share, views)
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

    def select(self, feats: Sequence[FeatureTap], taps: Sequence[Tap]) -> list[Tensor]:
        """The maps at some taps in the views that this loss compares; ``feats`` are of the first and second view."""
        if self.views == 'both':
            return [torch.cat([view[tap] for view in feats]) for tap in taps]
        return [feats[self.views == 'second'][tap] for tap in taps]

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

    def compare(self, student_feats: Sequence[Tensor], targets: Any) -> Tensor:
        if isinstance(self.loss, DistillationLoss):
            return self.loss.compare(student_feats, targets)
        return self.loss(student_feats, targets)


def _choose_teacher(name: str, teacher: Any, teachers: Mapping[str, FrozenTeacher]) -> str:
    choices = ', '.join(map(repr, teachers))
    if teacher is None and len(teachers) > 1:
        raise ValueError(f'losses.{name} names no teacher and there are several: set its teacher to one of {choices}')
    if teacher is not None and teacher not in list(teachers):
        raise ValueError(f'losses.{name}.teacher is {teacher!r}: choose one of {choices}')
    return next(iter(teachers)) if teacher is None else teacher


def _both_sides(name: str, spec: Any, student: nn.Module, teacher: FrozenTeacher) -> tuple[list[Tap], list[Tap]]:
    """Taps of the student and of the teacher, pair by pair."""
    if spec is None:
        raise ValueError(f'losses.{name} has no taps and the distiller none to share: list the modules to compare')
    if spec == 'auto':
        pairs = auto_pairs(student, teacher.model)
        return [ours.tap for ours, _ in pairs], [theirs.tap for _, theirs in pairs]
    if isinstance(spec, str) and spec in OUTPUTS:
        outputs = output_pairs(student, teacher.model, spec)
        return [ours for ours, _ in outputs], [theirs for _, theirs in outputs]
    spec = spec if isinstance(spec, dict) else dict(student=spec, teacher=spec)
    if set(spec) != {'student', 'teacher'}:
        raise ValueError(f'taps has the fields {sorted(spec)}: give a list, or dict(student=[...], teacher=[...])')
    student_taps = parse_taps(spec['student'], student, 'student')
    teacher_taps = parse_taps(spec['teacher'], teacher.model, teacher.name)
    if len(student_taps) != len(teacher_taps) or not student_taps:
        raise ValueError(
            f'losses.{name} has {len(student_taps)} student taps and {len(teacher_taps)} teacher taps: '
            'both lists need the same number, at least one'
        )
    return student_taps, teacher_taps


def _connector_key(student: Tap, teacher: Tap) -> str:
    """A connector's name in checkpoints. It is a format: files of every version are found by it."""
    return f'{student.key}--{teacher.key}'.replace('.', '_')
