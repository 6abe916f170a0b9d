"""The model that a distillation config names: a student that learns beside a frozen teacher."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Sequence
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from mmlckd.checkpoints import install_safe_loader
from mmlckd.compatibility import compile_by_hooks, compiled_since_2_10
from mmlckd.registry import MODELS

from .branches import learner_of, supervised_branch
from .distillation import Distillation
from .fields import check_fields, check_student, named_teachers
from .loss_entry import LossEntry


@MODELS.register_module()
class LipschitzDistiller(nn.Module):
    """Train a student by its own losses and by distillation losses against a frozen teacher.

    What is built is the student itself, with one more child, ``distiller`` (:class:`Distillation`), which holds the
    teachers, the connectors and the losses. Its class is made for it: a subclass of this one and of the student's own.
    So the student's methods, properties and hooks are all there; checkpoints are student checkpoints; optimizer
    constructors, EMA, DDP and ``isinstance`` meet the student as it is. A subclass of this class that takes more
    arguments overrides ``__new__``.

    Args:
        student: Model dict, or a built model, which is changed in place.
        teacher: See :class:`FrozenTeacher`.
        losses: Name to loss dict, or to None, which switches an inherited entry off. Beside the loss's own arguments an
            entry may have ``taps``, ``connectors`` (True: 1 x 1 convolution and batch norm to the teacher's channels,
            shared between entries that compare the same taps), ``teacher`` (which one, where there are several),
            ``views`` ('first', 'second' or 'both': which views of a batch are compared) and ``max_share``: the largest
            part of the total that this entry may make up, between 0 and 1. Above it the loss is scaled down; its
            gradient keeps its direction.
        taps: Taps of the entries that bring none: a list for both networks, the preset 'resnet_preact', or
            dict(student=..., teacher=...) of these; 'auto' for what :func:`mmlckd.taps.auto_pairs` finds, 'logits' or
            'boxes' for what :func:`mmlckd.taps.output_pairs` finds. See :class:`mmlckd.taps.Tap` for the forms of one.
        input_shape: (C, H, W) of the dry run. None: the channels of the data preprocessor or of the first convolution,
            at the size the backbone is made for, or at the first size from 16 to 512 px that the network takes.
        data_preprocessor: The student's, where the config has it at top level (mmpretrain's habit).
        teachers: Name to teacher, in the place of ``teacher`` where there are several.
        view: How a second view of each batch is made, for losses that look at it: dict(type='mmlckd.MixedView'),
            dict(type='mmlckd.NoisyView'), or a registered class of yours, called as ``view(inputs, data_samples)``. The
            student's own loss sees the first view only. Both views run in training mode, one after the other, and both
            move the running statistics of batch norms.

    Raises:
        ValueError: A field is wrong; the message names it, its value and what would work. In training: the student's
            step leaves the distillation losses out, or one of them teaches the student nothing.

    Source: this project; the training objective is LONDON's (ICCV 2021). torch's FSDP2 makes classes in the same way.
    """

    distiller: Distillation
    mixin: ClassVar[type]  # of the classes that are made: this class, or a user's subclass of it
    student_class: ClassVar[type]

    def __new__(
        cls,
        student: dict | nn.Module,
        teacher: None | str | dict | nn.Module = None,
        losses: dict[str, dict | None] | None = None,
        taps: None | str | Sequence | dict = None,
        input_shape: Sequence[int] | None = None,
        data_preprocessor: dict | None = None,
        teachers: dict[str, str | dict | nn.Module] | None = None,
        view: dict | None = None,
    ) -> LipschitzDistiller:
        install_safe_loader()
        compile_by_hooks()
        teachers = named_teachers(teacher, teachers)
        check_fields(losses, input_shape)
        if not isinstance(student, nn.Module):
            student = copy.deepcopy(student)  # mmseg writes into the dict that it builds
            if data_preprocessor is not None:
                student.setdefault('data_preprocessor', data_preprocessor)
            student = MODELS.build(student)
        if isinstance(student, LipschitzDistiller):
            raise ValueError(
                f'student is a {type(student).__name__}, which is distilled already: give the plain network'
            )
        check_student(student)
        assert losses is not None
        distillation = Distillation(learner_of(student), teachers, losses, taps, input_shape, view)
        student.__class__ = _distilled(cls, type(student))  # type: ignore[arg-type]  # classes are hashable
        student.distiller = distillation
        return cast(LipschitzDistiller, student)

    def __init__(self, *args, **kwargs) -> None:
        """Nothing is left to do: ``__new__`` returned a student that is initialised already."""

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor', **kwargs) -> Any:
        """The student's forward; in mode 'loss' with the distillation losses beside the student's."""
        return self._forward_distilled(inputs, data_samples, mode, **kwargs)

    @compiled_since_2_10
    def _forward_distilled(self, inputs: Tensor, data_samples: list | None, mode: str, **kwargs) -> Any:
        if mode != 'loss':
            return super().forward(inputs, data_samples, mode=mode, **kwargs)
        learner = learner_of(self)
        images, samples = supervised_branch(self, inputs, data_samples)
        views = self.distiller.views_of(images, samples)
        comparison = self.distiller.comparison(views, samples)
        with self.distiller.tapped(learner, None if learner is self else images, comparison) as feats:
            losses = dict(super().forward(inputs, data_samples, mode='loss', **kwargs))
        student_feats = [feats]
        for second in views[1:]:
            with self.distiller.tapped_second(learner) as feats:
                forward = super().forward if learner is self else learner
                forward(second, samples, mode='tensor')
            student_feats.append(feats)
        # MMEngine calls the total `loss`. mmpretrain's heads call theirs so too, and would hide the total in the log.
        if 'loss' in losses:
            losses['student.loss'] = losses.pop('loss')
        losses.update(self.distiller.compare(student_feats, comparison))
        return self.distiller.capped(losses, self.parse_losses)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """The student's own training step, which goes through :meth:`forward`.

        Raises:
            ValueError: It does not, so that no distillation loss is in it.
        """
        outputs = super().train_step(data, optim_wrapper)  # type: ignore[misc]  # the student's class has it
        if self.training and not self.distiller.checked:
            raise ValueError(
                f'student {type(self).student_class.__name__} has a train_step that does not call '
                "forward(mode='loss'), so no distillation loss is in it: let it call self(**data, mode='loss')"
            )
        return outputs

    def init_weights(self) -> None:
        """Initialise the student as its config says, and load the teachers; the connectors keep their own values."""
        distiller = cast(Distillation, self._modules.pop('distiller'))
        try:
            super().init_weights()  # type: ignore[misc]  # the student's class has it
        finally:
            self._modules['distiller'] = distiller
        for teacher in distiller.teachers.values():
            teacher.load()

    def __reduce_ex__(self, protocol: Any) -> tuple:
        """Copies and pickles make the class anew: no module has it under a name."""
        _, _, *state = cast(tuple, super().__reduce_ex__(max(protocol, 2)))
        return _blank, (type(self).mixin, type(self).student_class), *state


def entries_of(model: nn.Module) -> list[LossEntry]:
    """The loss entries of a distilled student; none of any other model."""
    return model.distiller.entries if isinstance(model, LipschitzDistiller) else []


@functools.cache
def _distilled(mixin: type, student_class: type) -> type:
    """The class of a distilled student. It counts as its student's package's, which is how hosts are told apart."""
    fields = dict(
        __module__=student_class.__module__,
        __new__=_empty,
        mixin=mixin,
        student_class=student_class,
    )
    return types.new_class(
        f'Distilled{student_class.__name__}', (mixin, student_class), {}, lambda body: body.update(fields)
    )


def _empty(cls: type, *args: Any, **kwargs: Any) -> nn.Module:
    """``__new__`` of such a class: a student's methods may make an empty copy of themselves, as for any class."""
    if args or kwargs:
        raise TypeError(f'{cls.__name__} is made of a built student: use mmlckd.LipschitzDistiller')
    return object.__new__(cls)


def _blank(mixin: type, student_class: type) -> LipschitzDistiller:
    return object.__new__(_distilled(mixin, student_class))
