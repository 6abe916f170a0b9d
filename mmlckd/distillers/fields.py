"""The fields of a distillation config: seen to before anything is built."""

from __future__ import annotations

import inspect
from typing import Any

from mmengine.model import BaseModel
from torch import nn

TEACHER_OPTIONS = ('checkpoint', 'norm_stats', 'precision')


def named_teachers(teacher: Any, teachers: Any) -> dict[str, Any]:
    """The teachers by name. The only one, as most configs have it, is called 'teacher'.

    Raises:
        ValueError: Neither field is given, or both, or a name is not usable.
    """
    if teachers is None and teacher is None:
        raise ValueError(
            "mmlckd.LipschitzDistiller lacks the field 'teacher': add it, or teachers=dict(name=...) for several"
        )
    if teachers is None:
        return dict(teacher=teacher)
    if teacher is not None:
        raise ValueError('teacher and teachers are both given: name all teachers in teachers, and leave teacher out')
    if not isinstance(teachers, dict) or not teachers:
        raise ValueError(f'teachers is {teachers!r}: give a dict of names and teachers, or one teacher as `teacher`')
    for name in teachers:
        if not isinstance(name, str) or not name or '.' in name:
            raise ValueError(f'teachers has the name {name!r}: give a word without dots')
    return teachers


def teacher_fields(spec: Any, field: str) -> dict[str, Any]:
    """A teacher's spec, in any of its forms, as a dict of ``config`` or ``model`` and options.

    Raises:
        ValueError: It has none of these forms.
    """
    if isinstance(spec, str):
        spec = dict(config=spec)
    elif isinstance(spec, nn.Module):
        spec = dict(model=spec)
    elif not isinstance(spec, dict):
        raise ValueError(f'{field} is {spec!r}: give a config path, a model dict, or dict(config=..., checkpoint=...)')
    spec = dict(spec)
    if 'type' in spec:
        options = {key: spec.pop(key) for key in TEACHER_OPTIONS if key in spec}
        spec = dict(model=spec, **options)
    if set(spec) - {'config', 'model', *TEACHER_OPTIONS} or ('config' in spec) == ('model' in spec):
        options = ', '.join(TEACHER_OPTIONS)
        raise ValueError(f'{field} has the fields {sorted(spec)}: give config or model, and optionally {options}')
    return spec


def check_fields(losses: Any, input_shape: Any) -> None:
    """See that a distiller has losses, and that its input shape can be one. Types are the validation layer's.

    Raises:
        ValueError: It has not, or it cannot.
    """
    if losses is None:
        raise ValueError(
            "mmlckd.LipschitzDistiller lacks the field 'losses': add it, as a dict of names and loss dicts"
        )
    if input_shape is not None and (len(input_shape) != 3 or min(input_shape) < 1):
        raise ValueError(f'input_shape is {input_shape!r}: give (C, H, W) of an input that both networks take')


def check_student(student: nn.Module) -> None:
    """See that a built student can be distilled.

    Raises:
        ValueError: It cannot.
    """
    kind = type(student).__name__
    if hasattr(student, 'distiller'):
        raise ValueError(f'student {kind} has a module or attribute called `distiller` already: rename it')
    if not isinstance(student, BaseModel):
        raise ValueError(
            f'student is a {kind}, no OpenMMLab model: give one whose class derives from mmengine.model.BaseModel'
        )
    parameters = list(inspect.signature(student.forward).parameters)
    if not {'inputs', 'data_samples', 'mode'} <= set(parameters):
        raise ValueError(
            f'student {kind} takes a batch as forward({", ".join(parameters)}): distillation needs one that takes '
            'forward(inputs, data_samples, mode)'
        )
    if next(student.parameters(), None) is None:
        raise ValueError(f'student {kind} has no parameters, so nothing can be trained: give a network with weights')
