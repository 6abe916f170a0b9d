"""All that a distilled student has beyond itself: the teacher, the connectors and the losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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
        view: dict | None = None,
    ):
        super().__init__()
        self.connectors = nn.ModuleDict()
        self.losses = nn.ModuleDict()
        self.teacher = FrozenTeacher(teacher)
        self.view = None if view is None else MODELS.build(view)
        losses = {name: cfg for name, cfg in losses.items() if cfg is not None}  # None switches an entry off
        if not losses:
            raise ValueError(
                'losses has no entry, and the student would learn alone: give one, or train the student config'
            )
        self.entries = [self._entry(name, cfg, taps, student) for name, cfg in losses.items()]
        if self.view is not None and all(entry.views == 'first' for entry in self.entries):
            raise ValueError(
                "view is set, and no loss looks at the second view: give one views='both', or take view out"
            )
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
        connectors, max_share, views = cfg.pop('connectors', False), cfg.pop('max_share', None), cfg.pop('views', None)
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
        entry = LossEntry(name, loss, student_taps, teacher_taps, keys, max_share, self._views(name, loss, views))
        entry.attach(self.teacher.model)
        return entry

    def _views(self, name: str, loss: nn.Module, asked: str | None) -> str:
        """Which views an entry compares: what it asks for, else what its loss is made for."""
        if asked not in (None, 'first', 'second', 'both'):
            raise ValueError(f"losses.{name}.views is {asked!r}: choose 'first', 'second' or 'both'")
        wanted = getattr(loss, 'views', 'first')
        if wanted == 'both' and asked in ('first', 'second'):
            raise ValueError(
                f'losses.{name}.views is {asked!r}, and {type(loss).__name__} needs both: leave `views` out'
            )
        views = asked or wanted
        if views != 'first' and self.view is None:
            raise ValueError(
                f"losses.{name} compares two views, and the distiller has no `view`: set view=dict(type='mmlckd.MixedView')"
            )
        return views

    def _connect(self, student: nn.Module, input_shape: tuple[int, ...]) -> None:
        """Dry runs of both networks: find shapes, make the connectors, and learn where the teacher may stop."""
        teacher_taps = list(dict.fromkeys(tap for entry in self.entries for tap in entry.teacher_taps))
        run = dry_run(student, self.student_taps, input_shape, 'student')
        self.overwritten, self.last_calls = run.overwritten, run.last_calls
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

    def views_of(self, inputs: Tensor, data_samples: list | None) -> list[Tensor]:
        """The batch, and its second view where there is one."""
        if self.view is None:
            return [inputs]
        with torch.no_grad():
            return [inputs, self.view(inputs, data_samples)]

    def targets(self, views: list[Tensor], data_samples: list | None) -> dict[str, Any]:
        """What each loss needs of the teacher for this batch, by its name; the teacher's maps are free again afterwards."""
        feats = [self.teacher(view, data_samples) for view in views]
        targets = {}
        for entry in self.entries:
            if len(views) > 1:
                entry.see_views((views[1] - views[0]).flatten(1).norm(dim=1))
            targets[entry.name] = entry.targets(entry.select(feats, entry.teacher_taps), data_samples)
        return targets

    def tapped(self, student: nn.Module) -> FeatureTap:
        """A context in which the student's forward leaves its tapped maps."""
        return FeatureTap(student, self.student_taps, copy=self.overwritten)

    @contextmanager
    def tapped_second(self, student: nn.Module) -> Iterator[FeatureTap]:
        """The same for the second view: the forward ends at the deepest tap, and moves no running statistics."""
        with ExitStack() as stack:
            for module in student.modules():
                if isinstance(module, _BatchNorm) and module.track_running_stats:
                    module.track_running_stats = False
                    stack.callback(setattr, module, 'track_running_stats', True)
            yield stack.enter_context(FeatureTap(student, self.student_taps, self.last_calls, self.overwritten))

    def compare(self, student_feats: list[FeatureTap], targets: dict[str, Any]) -> dict[str, Tensor]:
        """Every distillation loss by its key in the log; ``targets`` are used up."""
        connected: dict[str, Tensor] = {}
        losses = {}
        for entry in self.entries:
            maps = entry.select(student_feats, entry.student_taps)
            for i, key in enumerate(entry.connectors or ()):
                if (key, entry.views) not in connected:
                    connected[key, entry.views] = self.connectors[key](maps[i])
                maps[i] = connected[key, entry.views]
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
