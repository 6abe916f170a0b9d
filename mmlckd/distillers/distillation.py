"""All that a distilled student has beyond itself: the teachers, the connectors and the losses."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmlckd.registry import MODELS
from mmlckd.taps import DryRun, FeatureTap, Preprocessing, Tap, dry_run

from .channel_check import refuse_other_channels
from .comparison import Comparison
from .connectors import Connector
from .first_step import FirstStep
from .frozen_teacher import FrozenTeacher
from .loss_entry import LossEntry, name_connectors
from .max_share import hold_to_shares
from .views import KeepsPadding, check_views, input_change, second_view


class Distillation(nn.Module):
    """Frozen teachers, and what compares a student with them.

    Its children are what is trained and saved beside the student: ``connectors`` and ``losses``. The teachers are no
    modules, so they are neither. They move between devices with this module, and to a wider precision but to no
    narrower one. Copies share them.

    Args:
        student: The network that learns: of a semi-supervised detector the one that it calls its student.
        teachers: Name to the spec of a teacher, see :class:`FrozenTeacher`. The name of the only one is 'teacher'.
        losses, taps, input_shape, view: See :class:`LipschitzDistiller`.

    Attributes:
        teachers: Name to :class:`FrozenTeacher`.
        entries: The losses, with what each compares.
        checked: Whether a training step has been looked at, see :meth:`compare`.

    Raises:
        ValueError: A field is wrong; the message names it, its value and what would work.

    Source: this project.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: Mapping[str, str | dict | nn.Module],
        losses: dict[str, dict | None],
        taps: None | str | Sequence | dict,
        input_shape: Sequence[int] | None,
        view: dict | None = None,
    ):
        super().__init__()
        self.connectors = nn.ModuleDict()
        self.losses = nn.ModuleDict()
        self.teachers = {name: FrozenTeacher(spec, name) for name, spec in teachers.items()}
        self.entries = [
            LossEntry.build(name, cfg, taps, student, self.teachers)
            for name, cfg in losses.items()
            if cfg is not None  # None switches an entry off
        ]
        if not self.entries:
            raise ValueError(
                'losses has no entry, and the student would learn alone: give one, or train the student config'
            )
        name_connectors(self.entries)
        self.losses.update({entry.name: entry.loss for entry in self.entries})
        self.view = None if view is None else MODELS.build(view)
        if isinstance(self.view, KeepsPadding):
            self.view.watch(student.data_preprocessor)
        check_views(self.view, {entry.name: entry.views for entry in self.entries})
        self.student_taps = _taps_of(self.entries, 'student')
        self.register_buffer('pixel_std', Preprocessing.of(student.data_preprocessor).std, persistent=False)
        self.checked = False
        self._connect(student, input_shape)

    @property
    def teacher(self) -> FrozenTeacher:
        """The only teacher.

        Raises:
            AttributeError: There are several.
        """
        if len(self.teachers) > 1:
            raise AttributeError(f'there are several teachers: take one of distiller.teachers, {list(self.teachers)}')
        return next(iter(self.teachers.values()))

    def _connect(self, student: nn.Module, input_shape: Sequence[int] | None) -> None:
        """Dry runs of all networks: find shapes, make the connectors, and learn where a teacher may stop."""
        ours = dry_run(student, self.student_taps, input_shape, 'student', trained=True)
        self.overwritten, self.last_calls = ours.overwritten, ours.last_calls
        for name, teacher in self.teachers.items():
            entries = [entry for entry in self.entries if entry.teacher == name]
            if not entries:
                raise ValueError(
                    f'{teacher.field} is compared by no loss: name it in an entry of losses, or take it out'
                )
            theirs = teacher.prepare(_taps_of(entries, 'teacher'), student, ours.input_shape, input_shape)
            for entry in entries:
                self._add_connectors(entry, ours, theirs)
                refuse_other_channels(entry, student, ours, teacher.model, theirs)
                entry.check_channels([theirs.channels(tap) for tap in entry.teacher_taps])

    def _add_connectors(self, entry: LossEntry, ours: DryRun, theirs: DryRun) -> None:
        for key, student_tap, teacher_tap in zip(entry.connectors or (), entry.student_taps, entry.teacher_taps):
            student, teacher = ours.shapes[student_tap], theirs.shapes[teacher_tap]
            if len(student) != len(teacher) or len(student) not in (3, 4):
                raise ValueError(
                    f'losses.{entry.name} wants connectors between {student_tap}, which gives {student}, and '
                    f'{teacher_tap}, which gives {teacher}: connectors join maps (B, C, H, W), or tokens (B, N, C), so '
                    "lay tokens that meet maps out with grid='auto' on their tap"
                )
            if key not in self.connectors:
                self.connectors[key] = Connector(ours.channels(student_tap), theirs.channels(teacher_tap))

    def views_of(self, inputs: Tensor, data_samples: list | None) -> list[Tensor]:
        """The batch, and its second view where there is one.

        Raises:
            ValueError: The second view is no batch like the first.
        """
        if self.view is None:
            return [inputs]
        with torch.no_grad():
            second = second_view(self.view, inputs, data_samples)
            change = input_change(inputs, second, self.pixel_std)
            for entry in self._looking():
                entry.see_views(change)
        return [inputs, second]

    def comparison(self, views: Sequence[Tensor], data_samples: list | None) -> Comparison:
        """The comparison of one step. The teachers have seen the views, and their maps are freed."""
        targets = self._targets(views, data_samples)
        return Comparison(self.entries, self.connectors, targets, self.last_calls, lets_go=self.checked)

    def _targets(self, views: Sequence[Tensor], data_samples: list | None) -> dict[str, Any]:
        """What each loss needs of its teacher for this batch, by the loss's name."""
        targets = {}
        for name, teacher in self.teachers.items():
            feats = [teacher(views[0], data_samples)]
            looking = [entry for entry in self._looking() if entry.teacher == name]
            if looking:
                feats.append(teacher(views[1], data_samples, _taps_of(looking, 'teacher')))
            for entry in self.entries:
                if entry.teacher == name:
                    targets[entry.name] = entry.targets(entry.select(feats, entry.teacher_taps), data_samples)
            del feats
        return targets

    def tapped(
        self, student: nn.Module, images: Tensor | None = None, comparison: Comparison | None = None
    ) -> FeatureTap:
        """A context in which the student's forward leaves its tapped maps; of several forwards that of ``images``.

        A comparison gets the maps at once, too.
        """
        arrive = None if comparison is None else comparison.arrive
        return FeatureTap(student, self.student_taps, copy=self.overwritten, images=images, arrive=arrive)

    def tapped_second(self, student: nn.Module) -> FeatureTap:
        """The same for the second view, whose forward ends at the deepest tap that a loss looks at there."""
        return FeatureTap(student, _taps_of(self._looking(), 'student'), self.last_calls, self.overwritten)

    def _looking(self) -> list[LossEntry]:
        """The losses that look at the second view."""
        return [entry for entry in self.entries if entry.views != 'first']

    def compare(self, student_feats: Sequence[FeatureTap], comparison: Comparison) -> dict[str, Tensor]:
        """Every distillation loss by its key in the log.

        ``student_feats`` are of the forwards of the first view, and of the second where there is one.

        The first training step is looked at, see ``FirstStep``.

        Raises:
            ValueError: A loss teaches the student nothing, or a map was overwritten in place.
        """
        for feats in student_feats:
            feats.refuse_overwritten('student')
        first = None
        if not self.checked and student_feats[0].model.training and torch.is_grad_enabled():
            first = FirstStep(self.entries, student_feats, comparison.targets)
        losses = comparison.losses(student_feats, first)
        if first is not None:
            first.end(self.entries, losses)
            self.checked = True
        return {entry.key: losses[entry.name] for entry in self.entries}

    def capped(self, losses: dict[str, Any], parse_losses: Callable[[dict], tuple]) -> dict[str, Any]:
        """The losses of a step, those of entries with a ``max_share`` held to it."""
        shares = {entry.key: entry.max_share for entry in self.entries if entry.max_share is not None}
        return hold_to_shares(losses, shares, parse_losses) if shares else losses

    def __deepcopy__(self, memo: dict) -> Distillation:
        """Copies share the teachers, and so do losses that refer to a teacher's modules."""
        for teacher in self.teachers.values():
            shared = (*teacher.model.modules(), *teacher.model.parameters(), *teacher.model.buffers())
            memo.update({id(item): item for item in shared})
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> Distillation:
        super()._apply(fn, *args, **kwargs)  # torch 2.1 and later have a second argument
        for teacher in self.teachers.values():
            teacher.model._apply(functools.partial(_moved, fn))
        return self


def _moved(fn: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """A teacher's tensor after a move of the student. It loses no digits: copies in half precision share teachers."""
    moved = fn(value)
    return moved if torch.promote_types(moved.dtype, value.dtype) == moved.dtype else value.to(moved.device)


def _taps_of(entries: Sequence[LossEntry], side: str) -> list[Tap]:
    """The taps of some losses on the student or on the teacher, each once."""
    taps = [entry.student_taps if side == 'student' else entry.teacher_taps for entry in entries]
    return list(dict.fromkeys(tap for of_entry in taps for tap in of_entry))
