"""All that a distilled student has beyond itself: the teacher, the connectors and the losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmlckd.registry import MODELS
from mmlckd.taps import FeatureTap, ForwardFailed, Tap, default_input_shape, dry_run, parse_taps

from .connectors import Connector
from .frozen_teacher import FrozenTeacher
from .loss_entry import LossEntry


class Distillation(nn.Module):
    """A frozen teacher, and what compares a student with it.

    Its children are what is trained and saved beside the student: ``connectors`` and ``losses``. The teacher is no
    module, so it is neither. It moves between devices with this module, and copies share it.

    Args:
        student: The network to train.
        teacher, losses, taps, input_shape: See :class:`LipschitzDistiller`.

    Raises:
        ValueError: A field is wrong; the message names it, its value and what would work.

    Source: this project.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: str | dict,
        losses: dict[str, dict | None],
        taps: None | str | Sequence | dict,
        input_shape: Sequence[int] | None,
    ):
        super().__init__()
        self.connectors = nn.ModuleDict()
        self.losses = nn.ModuleDict()
        self.teacher = FrozenTeacher(teacher)
        losses = {name: cfg for name, cfg in losses.items() if cfg is not None}  # None switches an entry off
        if not losses:
            raise ValueError(
                'losses has no entry, and the student would learn alone: give one, or train the student config'
            )
        self.entries = [self._entry(name, cfg, taps, student) for name, cfg in losses.items()]
        self.student_taps = list(dict.fromkeys(tap for entry in self.entries for tap in entry.student_taps))
        for size in (16, 32, 64):
            try:
                self._connect(student, tuple(input_shape or default_input_shape(student, size)))
                break
            except ForwardFailed:
                if input_shape is not None or size == 64:
                    raise

    def _entry(self, name: str, cfg: dict, taps: Any, student: nn.Module) -> LossEntry:
        cfg = dict(cfg)
        spec = cfg.pop('taps', taps)
        connectors, max_share = cfg.pop('connectors', False), cfg.pop('max_share', None)
        if spec is None:
            raise ValueError(f'losses.{name} has no taps and the distiller none to share: list the modules to compare')
        if not isinstance(connectors, bool):
            raise ValueError(f'losses.{name}.connectors is {connectors!r}: choose True or False')
        if max_share is not None and not 0 < max_share < 1:
            raise ValueError(f'losses.{name}.max_share is {max_share}: give a part of the total between 0 and 1')
        spec = spec if isinstance(spec, dict) else dict(student=spec, teacher=spec)
        if set(spec) != {'student', 'teacher'}:
            raise ValueError(f'taps has the fields {sorted(spec)}: give a list, or dict(student=[...], teacher=[...])')
        student_taps = parse_taps(spec['student'], student, 'student')
        teacher_taps = parse_taps(spec['teacher'], self.teacher.model, 'teacher')
        if len(student_taps) != len(teacher_taps) or not student_taps:
            raise ValueError(
                f'losses.{name} has {len(student_taps)} student taps and {len(teacher_taps)} teacher taps: '
                'both lists need the same number, at least one'
            )
        try:
            loss = self.losses[name] = MODELS.build(cfg)
        except ValueError as error:  # it begins with the field
            raise ValueError(f'losses.{name}.{error}') from error
        keys = [_connector_key(*pair) for pair in zip(student_taps, teacher_taps)] if connectors else None
        entry = LossEntry(name, loss, student_taps, teacher_taps, keys, max_share)
        entry.attach(self.teacher.model)
        return entry

    def _connect(self, student: nn.Module, input_shape: tuple[int, ...]) -> None:
        """Dry runs of both networks: find shapes, make the connectors, and learn where the teacher may stop."""
        teacher_taps = list(dict.fromkeys(tap for entry in self.entries for tap in entry.teacher_taps))
        run = dry_run(student, self.student_taps, input_shape, 'student')
        self.overwritten = run.overwritten
        teacher_shapes = self.teacher.prepare(teacher_taps, student, input_shape)
        for entry in self.entries:
            for key, ours, theirs in zip(entry.connectors or (), entry.student_taps, entry.teacher_taps):
                shapes = run.shapes[ours], teacher_shapes[theirs]
                if any(len(shape) != 4 for shape in shapes):
                    raise ValueError(
                        f'losses.{entry.name} wants connectors between {ours}, which gives {shapes[0]}, and {theirs}, '
                        f'{shapes[1]}: connectors join maps (B, C, H, W); lay tokens out with a `grid` on the tap'
                    )
                if key not in self.connectors:
                    self.connectors[key] = Connector(shapes[0][1], shapes[1][1])

    def targets(self, inputs: Tensor, data_samples: list | None) -> dict[str, Any]:
        """What each loss needs of the teacher for this batch, by its name; the teacher's maps are free again afterwards."""
        feats = self.teacher(inputs, data_samples)
        return {
            entry.name: entry.targets([feats[tap] for tap in entry.teacher_taps], data_samples)
            for entry in self.entries
        }

    def tapped(self, student: nn.Module) -> FeatureTap:
        """A context in which the student's forward leaves its tapped maps."""
        return FeatureTap(student, self.student_taps, copy=self.overwritten)

    def compare(self, student_feats: FeatureTap, targets: dict[str, Any]) -> dict[str, Tensor]:
        """Every distillation loss by its key in the log; ``targets`` are used up."""
        connected: dict[str, Tensor] = {}
        losses = {}
        for entry in self.entries:
            maps = [student_feats[tap] for tap in entry.student_taps]
            for i, key in enumerate(entry.connectors or ()):
                if key not in connected:
                    connected[key] = self.connectors[key](maps[i])
                maps[i] = connected[key]
            losses[entry.key] = entry.compare(maps, targets.pop(entry.name))
        return losses

    def capped(self, losses: dict[str, Any], parse_losses: Callable[[dict], tuple]) -> dict[str, Any]:
        """Scale down entries above their ``max_share``, measured against the uncapped rest, without leaving the device.

        With R the sum of all losses that have no cap, an entry is held to R * share / (1 - share): exactly its
        share for one capped entry, at most its share where several are. A negative R counts as 0.
        """
        shares = {entry.key: entry.max_share for entry in self.entries if entry.max_share is not None}
        if not shares:
            return losses
        rest, _ = parse_losses({name: value for name, value in losses.items() if name not in shares})
        for name, share in shares.items():
            value = losses[name].detach()
            bound = rest.detach().clamp_min(0) * (share / (1 - share))
            losses[name] = losses[name] * torch.where(value > bound, bound / value, 1.0)
        return losses

    def _apply(self, fn: Callable, recurse: bool = True) -> Distillation:
        super()._apply(fn, recurse)
        self.teacher.model._apply(fn)
        return self


def _connector_key(student: Tap, teacher: Tap) -> str:
    """A connector's name in checkpoints. It is a format: files of every version are found by it."""
    return f'{student.key}--{teacher.key}'.replace('.', '_')
