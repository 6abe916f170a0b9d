"""What an entry of a distiller's ``losses`` is made of: its loss, its teacher and its taps."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from mmlckd.losses.checks import check_foreign_weight
from mmlckd.registry import MODELS, class_of
from mmlckd.taps import OUTPUTS, Tap, auto_pairs, output_pairs, parse_taps
from mmlckd.validation import in_words

from .frozen_teacher import FrozenTeacher


def build_loss(name: str, cfg: dict) -> nn.Module:
    """The loss of its config. Classes from elsewhere may meet wrong values unprepared.

    Raises:
        ValueError: A field is wrong; the message names it, or all fields where the class does not tell which.
    """
    fields = {key: value for key, value in cfg.items() if key != 'type'}
    try:
        loss = MODELS.build(cfg)
        check_foreign_weight('loss_weight', fields)
    except ValueError as error:  # it begins with the field
        raise ValueError(f'losses.{name}.{error}') from error
    except TypeError as error:
        if not _takes(cfg.get('type'), fields):
            raise  # a field that is unknown or missing: the tools say which
        given = ', '.join(f'{key}={in_words(value)}' for key, value in fields.items()) or 'no field'
        raise ValueError(f'losses.{name} cannot be made with {given}: {error}, so correct its fields') from error
    if not isinstance(loss, nn.Module):
        raise ValueError(f'losses.{name}.type makes a {type(loss).__name__}: name a class of torch modules')
    return loss


def _takes(kind: Any, fields: dict) -> bool:
    """Whether a class may be called with these fields."""
    try:
        inspect.signature(cast(type, class_of(kind, MODELS))).bind(**fields)
    except TypeError:
        return False
    return True


def choose_teacher(name: str, teacher: Any, teachers: Mapping[str, FrozenTeacher]) -> str:
    """The name of the teacher that an entry compares with.

    Raises:
        ValueError: There is none of that name, or several and the entry names none.
    """
    choices = ', '.join(map(repr, teachers))
    if teacher is None and len(teachers) > 1:
        raise ValueError(f'losses.{name} names no teacher and there are several: set its teacher to one of {choices}')
    if teacher is not None and teacher not in list(teachers):
        raise ValueError(f'losses.{name}.teacher is {teacher!r}: choose one of {choices}')
    return next(iter(teachers)) if teacher is None else teacher


def both_sides(name: str, spec: Any, student: nn.Module, teacher: FrozenTeacher) -> tuple[list[Tap], list[Tap]]:
    """Taps of the student and of the teacher, pair by pair.

    Raises:
        ValueError: There are none, not as many of both, or the rule for 'auto' or 'logits' finds none.
    """
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
