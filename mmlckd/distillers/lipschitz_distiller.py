"""The model that a distillation config names: a student that learns beside a frozen teacher."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmlckd.checkpoints import install_safe_loader
from mmlckd.registry import MODELS

from .distillation import Distillation
from .loss_entry import LossEntry


@MODELS.register_module()
class LipschitzDistiller(nn.Module):
    """Train a student by its own losses and by distillation losses against a frozen teacher.

    What is built is the student itself, with one more child, ``distiller`` (:class:`Distillation`), which holds the
    teacher, the connectors and the losses. Its class is made for it: a subclass of this one and of the student's own. So
    the student's methods, properties and hooks are all there; checkpoints are student checkpoints; optimizer
    constructors, EMA, DDP and ``isinstance`` meet the student as it is.

    Args:
        student: Model dict, or a built model, which is changed in place.
        teacher: See :class:`FrozenTeacher`.
        losses: Name to loss dict, or to None, which switches an inherited entry off. Beside the loss's own arguments an
            entry may have ``taps``, ``connectors`` (True: 1 x 1 convolution and batch norm to the teacher's channels,
            shared between entries that compare the same taps) and ``max_share``: the largest part of the total that this
            entry may make up, between 0 and 1. Above it the loss is scaled down; its gradient keeps its direction.
        taps: Taps of the entries that bring none: a list for both networks, the preset 'resnet_preact', or
            dict(student=..., teacher=...) of these. See :class:`mmlckd.taps.Tap` for the forms of one.
        input_shape: (C, H, W) of the dry run. None: the channels of the first convolution, at the size the backbone is
            fixed to, or the first of 16, 32 and 64 px at which no network fails.
        data_preprocessor: The student's, where the config has it at top level (mmpretrain's habit).

    Raises:
        ValueError: A field is wrong; the message names it, its value and what would work.

    Source: this project; the training objective is LONDON's (ICCV 2021). The class is made as torch's FSDP2 makes its own.
    """

    distiller: Distillation

    def __new__(
        cls,
        student: dict | nn.Module,
        teacher: str | dict,
        losses: dict[str, dict | None],
        taps: None | str | Sequence | dict = None,
        input_shape: Sequence[int] | None = None,
        data_preprocessor: dict | None = None,
    ) -> LipschitzDistiller:
        install_safe_loader()
        if not isinstance(student, nn.Module):
            student = copy.deepcopy(student)  # mmseg writes into the dict that it builds
            if data_preprocessor is not None:
                student.setdefault('data_preprocessor', data_preprocessor)
            student = MODELS.build(student)
        if hasattr(student, 'distiller'):
            raise ValueError(
                f'student {type(student).__name__} has a module or attribute called `distiller` already: rename it'
            )
        student.distiller = Distillation(student, teacher, losses, taps, input_shape)
        student.__class__ = _distilled(cls, type(student))
        return student

    def __init__(self, *args, **kwargs) -> None:
        """Nothing is left to do: ``__new__`` returned a student that is initialised already."""

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor', **kwargs) -> Any:
        """The student's forward; in mode 'loss' with the distillation losses beside the student's."""
        if mode != 'loss':
            return super().forward(inputs, data_samples, mode=mode, **kwargs)
        targets = self.distiller.targets(inputs, data_samples)
        with self.distiller.tapped(self) as student_feats:
            losses = dict(super().forward(inputs, data_samples, mode='loss', **kwargs))
        if (
            'loss' in losses
        ):  # what MMEngine calls the total: mmpretrain's heads use that name, and the log would show theirs
            losses['student.loss'] = losses.pop('loss')
        losses.update(self.distiller.compare(student_feats, targets))
        return self.distiller.capped(losses, self.parse_losses)

    def init_weights(self) -> None:
        """Initialise the student as its config says, and load the teacher; the connectors keep their own values."""
        distiller = self._modules.pop('distiller')
        try:
            super().init_weights()
        finally:
            self._modules['distiller'] = distiller
        distiller.teacher.load()

    def __reduce_ex__(self, protocol: int) -> tuple:
        """Copies and pickles make the class anew: no module has it under a name."""
        _, mixin, student_class = type(self).__mro__[:3]
        return _blank, (mixin, student_class), self.__dict__


def entries_of(model: nn.Module) -> list[LossEntry]:
    """The loss entries of a distilled student; none of any other model."""
    return model.distiller.entries if isinstance(model, LipschitzDistiller) else []


@functools.cache
def _distilled(mixin: type[LipschitzDistiller], student_class: type[nn.Module]) -> type:
    """The class of a distilled student. It counts as its student's package's, which is how hosts are told apart."""
    name = f'Distilled{student_class.__name__}'
    return type(student_class)(name, (mixin, student_class), dict(__module__=student_class.__module__))


def _blank(mixin: type[LipschitzDistiller], student_class: type[nn.Module]) -> LipschitzDistiller:
    return object.__new__(_distilled(mixin, student_class))
