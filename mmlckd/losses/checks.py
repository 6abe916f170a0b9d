"""What losses refuse: each message says what is wrong and what to do.

Arguments of classes in this package's registry are checked for their types by :mod:`mmlckd.validation`. Here are
ranges, lengths and shapes, and the types of numbers, because losses may be registered elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mmlckd.functional import AffineMap
from mmlckd.validation import check_number


def check_weight(name: str, value: float) -> None:
    """See that a weight is a finite number, 0 or above.

    Raises:
        ValueError: It is not.
    """
    check_number(name, value)
    if not math.isfinite(value):
        raise ValueError(f'{name} is {value}: give a finite number, 0 or above')
    if value < 0:
        raise ValueError(f'{name} is {value}: it must not be negative')


def check_foreign_weight(name: str, fields: Mapping[str, Any]) -> None:
    """See that the ``loss_weight`` of a loss from elsewhere is no string: not every class looks at what it is given.

    Args:
        name: The field, for the message.
        fields: All fields of the loss.

    Raises:
        ValueError: It is a string or a flag. Other forms, such as a list, are the class's own matter.
    """
    weight = fields.get('loss_weight')
    if isinstance(weight, (str, bool)):
        check_number(name, weight)


def check_weights(name: str, weights: str | Sequence[float], choices: Sequence[str]) -> None:
    """See that weights are one of the named ``choices`` or a list of numbers that :func:`check_weight` takes.

    Raises:
        ValueError: They are not.
    """
    if not isinstance(weights, Sequence):
        raise ValueError(f'{name} is {weights!r}: choose {", ".join(map(repr, choices))} or a list of numbers')
    if isinstance(weights, str):
        if weights not in choices:
            raise ValueError(f'{name} is {weights!r}: choose {", ".join(map(repr, choices))} or a list of numbers')
        return
    for i, weight in enumerate(weights):
        check_weight(f'{name}[{i}]', weight)


def pick_weights(name: str, weights: str | Sequence[float], count: int, unit: str, named: dict) -> list[float]:
    """The ``count`` weights that ``weights`` stands for: a list as it is, or a name's entry in ``named``.

    Raises:
        ValueError: A list of another length.
    """
    if isinstance(weights, str):
        return named[weights]
    if len(weights) != count:
        raise ValueError(f'{name} has {len(weights)} numbers for {count} {unit}s: give one a {unit}')
    return list(weights)


def check_temperature(tau: float) -> None:
    """See that a temperature is a positive and finite number.

    Raises:
        ValueError: It is not.
    """
    check_number('tau', tau)
    if not 0 < tau < math.inf:
        raise ValueError(f'tau is {tau}: a temperature must be positive')


def check_counts(student_feats: Sequence, teacher_feats: Sequence) -> None:
    """See that both sides have the same number of maps.

    Raises:
        ValueError: They have not.
    """
    ours, theirs = len(student_feats), len(teacher_feats)
    if ours != theirs:
        raise ValueError(f'{ours} student maps and {theirs} teacher maps: tap as many modules on both sides')


def check_consecutive(student_feats: Sequence, pairs: Sequence, loss: str) -> None:
    """See that there are two maps or more, and that the teacher's ``pairs`` are those of the same number of maps.

    Raises:
        ValueError: There are fewer, or another number.
    """
    check_counts(student_feats, [None, *pairs])
    if len(student_feats) < 2:
        raise ValueError(f'{len(student_feats)} map is tapped: {loss} compares consecutive maps and needs at least two')


def check_batch(student: Sequence | Tensor | AffineMap, teacher: Sequence | Tensor) -> None:
    """See that both sides hold the same number of samples.

    Raises:
        ValueError: They do not.
    """
    ours, theirs = len(student), len(teacher)
    if ours != theirs:
        raise ValueError(
            f'a student batch of {ours} against a teacher batch of {theirs}: both must see the same images'
        )


def check_one_batch(feats: Sequence[Tensor], side: str) -> None:
    """See that all maps of one network hold the same number of samples.

    Raises:
        ValueError: They do not: regions of interest, for example, are more than the images.
    """
    sizes = [len(feat) for feat in feats]
    if len(set(sizes)) > 1:
        raise ValueError(f"the {side}'s maps hold {sizes} samples: tap modules that see the same whole images")


def check_pair(student: Tensor | AffineMap, teacher: Tensor, index: int, alike: str = 'shape') -> None:
    """See that two maps can be compared.

    Args:
        student: Map number ``index`` of the student.
        teacher: The teacher's.
        index: For the message.
        alike: What must agree: 'batch'; 'channels', which are last in three dimensions and second otherwise; 'shape'.

    Raises:
        ValueError: It does not agree.
    """
    if student.dim() and teacher.dim():
        check_batch(student, teacher)
    found = f"student map {index} is {tuple(student.shape)} and the teacher's {tuple(teacher.shape)}"
    channels_fit = student.dim() == teacher.dim() and _channels(student) == _channels(teacher)
    remedies = []
    if student.dim() == teacher.dim() == 2:
        remedies = ['give both heads the same classes']
    elif not channels_fit:
        remedies = ['set connectors=True on this loss, since channels differ']
    if alike == 'shape' and student.shape != teacher.shape:
        if student.dim() > 2 and student.shape[2:] != teacher.shape[2:]:
            remedies.insert(0, 'tap stages of equal size')
        raise ValueError(f'{found}: this loss needs equal shapes, so {" and ".join(remedies)}')
    if alike == 'channels' and not channels_fit:
        raise ValueError(f'{found}: this loss needs equal channels, so {remedies[0]}')


def _channels(feat: Tensor | AffineMap) -> int:
    return feat.shape[2 if feat.dim() == 3 else 1]
