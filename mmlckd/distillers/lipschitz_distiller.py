"""The model a distillation config names: a student, and beside it a frozen teacher."""

import copy
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmlckd.registry import MODELS

from .connectors import Connector
from .dry_run import dry_run
from .feature_tap import FeatureTap, Tap, parse_taps
from .frozen_teacher import FrozenTeacher

# What an nn.Module keeps its tree and its state-dict behaviour in.
_SHARED = ('_modules', '_parameters', '_buffers', '_non_persistent_buffers_set', '_state_dict_hooks', '_state_dict_pre_hooks',
           '_load_state_dict_pre_hooks', '_load_state_dict_post_hooks')


@dataclass
class LossEntry:
    """One entry of ``losses``: a loss, the taps it compares, and the connectors between (None: maps as they are)."""

    name: str
    loss: nn.Module
    student_taps: List[Tap]
    teacher_taps: List[Tap]
    connectors: Optional[List[str]]
    max_share: Optional[float]


@MODELS.register_module()
class LipschitzDistiller(BaseModel):
    """Train a student by its own losses and by distillation losses against a frozen teacher.

    The distiller and its student are two views of one module tree: the student's children are the distiller's, under
    the student's own names, with one more child, ``distiller``, that holds the connectors. So checkpoints are student
    checkpoints; optimizer constructors, EMA, DDP and hooks meet the student as it is; and what the distiller lacks
    is looked up in the student.

    Args:
        student: Model dict, or a built model.
        teacher: See :class:`FrozenTeacher`.
        losses: Name to loss dict. Beside the loss's own arguments an entry may have ``taps``, ``connectors`` (True: 1 x 1
            convolution and batch norm to the teacher's channels, shared between entries that compare the same taps) and
            ``max_share``: the largest part of the total that this entry may make up, between 0 and 1; above it the loss is
            scaled down, its gradient's direction kept.
        taps: Taps of the entries that bring none: a list for both networks, the preset 'resnet_preact', or
            dict(student=..., teacher=...) of these. See :class:`Tap` for the forms of one.
        input_shape: (C, H, W) of the dry run. None: the channels of the first convolution, at the size the backbone is fixed to, or
            the first of 16, 32 and 64 px at which no network fails.
        data_preprocessor: The student's, where the config has it at top level (mmpretrain's habit).

    Raises:
        ValueError: A field is wrong; the message names it, its value and what would work.

    Source: this project; the training objective is LONDON's (ICCV 2021).
    """

    def __init__(self,
                 student: Union[dict, nn.Module],
                 teacher: Union[str, dict],
                 losses: Dict[str, dict],
                 taps: Union[None, str, Sequence, dict] = None,
                 input_shape: Optional[Sequence[int]] = None,
                 data_preprocessor: Optional[dict] = None):
        if not isinstance(student, nn.Module):
            student = copy.deepcopy(student)  # mmseg writes into the dict that it builds
            if data_preprocessor is not None:
                student.setdefault('data_preprocessor', data_preprocessor)
            student = MODELS.build(student)
        if hasattr(student, 'distiller'):
            raise ValueError(f'student {type(student).__name__} has a module called `distiller` already: rename it')
        super().__init__(data_preprocessor=student.data_preprocessor)
        self.__dict__.update({name: student.__dict__[name] for name in _SHARED})
        self.__dict__.update(student=student, teacher=FrozenTeacher(teacher))
        connectors, modules = nn.ModuleDict(), nn.ModuleDict()
        self.entries = [self._entry(name, cfg, taps, modules) for name, cfg in losses.items()]
        for size in (16, 32, 64):
            try:
                self._connect(tuple(input_shape or default_input_shape(student, size)), connectors)
                break
            except ValueError:
                if input_shape is not None or size == 64:
                    raise
        self.distiller = nn.ModuleDict(dict(connectors=connectors, losses=modules))

    def _entry(self, name: str, cfg: dict, taps: Any, modules: nn.ModuleDict) -> LossEntry:
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
        student_taps, teacher_taps = (parse_taps(spec[side], model, side)
                                      for side, model in (('student', self.student), ('teacher', self.teacher.model)))
        if len(student_taps) != len(teacher_taps) or not student_taps:
            raise ValueError(f'losses.{name} has {len(student_taps)} student taps and {len(teacher_taps)} teacher taps: '
                             'both lists need the same number, at least one')
        try:
            loss = modules[name] = MODELS.build(cfg)
        except ValueError as error:  # it begins with the field
            raise ValueError(f'losses.{name}.{error}') from error
        if hasattr(loss, 'attach'):
            loss.attach(self.teacher.model, teacher_taps)
        pairs = zip(student_taps, teacher_taps)
        keys = [f'{student}--{teacher}'.replace('.', '_') for student, teacher in pairs] if connectors else None
        return LossEntry(name, loss, student_taps, teacher_taps, keys, max_share)

    def _connect(self, input_shape: Tuple[int, ...], connectors: nn.ModuleDict) -> None:
        """Dry runs of both networks: find shapes, make the connectors, and learn where the teacher may stop."""
        self.student_taps = list(dict.fromkeys(tap for entry in self.entries for tap in entry.student_taps))
        teacher_taps = list(dict.fromkeys(tap for entry in self.entries for tap in entry.teacher_taps))
        run = dry_run(self.student, self.student_taps, input_shape, 'student')
        self.overwritten = run.overwritten
        teacher_shapes = self.teacher.connect(teacher_taps, self.student, input_shape)
        for entry in self.entries:
            for key, student, teacher in zip(entry.connectors or (), entry.student_taps, entry.teacher_taps):
                shapes = run.shapes[student], teacher_shapes[teacher]
                if any(len(shape) != 4 for shape in shapes):
                    raise ValueError(f'losses.{entry.name} wants connectors between {student}, which gives {shapes[0]}, and {teacher}, '
                                     f'{shapes[1]}: connectors join maps (B, C, H, W); lay tokens out with a `grid` on the tap')
                if key not in connectors:
                    connectors[key] = Connector(shapes[0][1], shapes[1][1])

    def forward(self, inputs: Tensor, data_samples: Optional[list] = None, mode: str = 'tensor', **kwargs) -> Any:
        """The student's forward; in mode 'loss' with the distillation losses beside the student's."""
        if mode != 'loss':
            return self.student(inputs, data_samples, mode=mode, **kwargs)
        targets = self._targets(self.teacher(inputs, data_samples))
        with FeatureTap(self.student, self.student_taps, copy=self.overwritten) as student_feats:
            losses = dict(self.student(inputs, data_samples, mode='loss', **kwargs))
        connected: Dict[str, Tensor] = {}
        for entry in self.entries:
            maps = [student_feats[tap] for tap in entry.student_taps]
            for i, key in enumerate(entry.connectors or ()):
                if key not in connected:
                    connected[key] = self.distiller['connectors'][key](maps[i])
                maps[i] = connected[key]
            compare = getattr(entry.loss, 'compare', entry.loss)
            losses[f'distiller.loss_{entry.name}'] = compare(maps, targets.pop(entry.name))
        return self._cap(losses)

    def _targets(self, teacher_feats: FeatureTap) -> Dict[str, Any]:
        """What each loss needs of the teacher: of losses that say so, less than the maps, which are free again before the student runs."""
        targets = {}
        for entry in self.entries:
            maps = [teacher_feats[tap] for tap in entry.teacher_taps]
            targets[entry.name] = entry.loss.targets(maps) if hasattr(entry.loss, 'targets') else maps
        return targets

    def _cap(self, losses: Dict[str, Any]) -> Dict[str, Any]:
        """Scale down entries above their ``max_share``, measured against the uncapped rest, without leaving the device.

        With R the sum of all losses that have no cap, an entry is held to R * share / (1 - share): exactly its
        share for one capped entry, at most its share where several are.
        """
        capped = {f'distiller.loss_{entry.name}': entry.max_share for entry in self.entries if entry.max_share is not None}
        if not capped:
            return losses
        rest, _ = self.student.parse_losses({name: value for name, value in losses.items() if name not in capped})
        for name, share in capped.items():
            value = losses[name].detach()
            bound = rest.detach() * (share / (1 - share))
            losses[name] = losses[name] * torch.where(value > bound, bound / value, 1.)
        return losses

    def init_weights(self) -> None:
        """Initialise the student as its config says, and load the teacher; the connectors keep theirs."""
        extra = self._modules.pop('distiller')
        try:
            self.student.init_weights()
        finally:
            self._modules['distiller'] = extra
        self.teacher.load()

    def train(self, mode: bool = True) -> 'LipschitzDistiller':
        self.training = mode
        self.student.train(mode)
        return self

    def parse_losses(self, losses: dict) -> tuple:
        return self.student.parse_losses(losses)

    def val_step(self, data: Any) -> list:
        return self.student.val_step(data)

    def test_step(self, data: Any) -> list:
        return self.student.test_step(data)

    def _apply(self, fn, recurse: bool = True) -> 'LipschitzDistiller':
        super()._apply(fn, recurse)
        self.teacher.model._apply(fn)
        return self

    def _save_to_state_dict(self, *args, **kwargs) -> None:
        self.student._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        self.student._load_from_state_dict(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if 'student' not in self.__dict__:
                raise
            return getattr(self.student, name)


def default_input_shape(model: nn.Module, size: int = 64) -> Tuple[int, int, int]:
    """(C, H, W): the first convolution's channels, at the size a backbone is fixed to or else the given one."""
    channels = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
    size = getattr(getattr(model, 'backbone', None), 'img_size', size)
    return (channels, *(size if isinstance(size, (tuple, list)) else (size, size)))
