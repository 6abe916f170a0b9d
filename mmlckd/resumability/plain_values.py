"""Questions about values from a checkpoint, which may be anything that a file can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from typing import TypeGuard  # new in Python 3.10

MAX_COUNT = 2**62  # of iterations; sums of two still fit into 64 bits


def is_count(value: Any) -> bool:
    """Whether it is a whole number from 0 on."""
    return type(value) is int and 0 <= value <= MAX_COUNT


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def is_list_of(value: Any, fits) -> TypeGuard[Sequence]:
    """Whether it is a list or a tuple whose items all fit."""
    return isinstance(value, (list, tuple)) and all(map(fits, value))


def is_table_of(value: Any, fits) -> bool:
    """Whether it is a dict from names to values that all fit."""
    return isinstance(value, dict) and all(isinstance(key, str) and fits(item) for key, item in value.items())


def same_kind(value: Any, present: Any) -> bool:
    """Whether a saved value may take the place of a present one.

    None and truth values may stand for one another, since optimizers turn one into the other over their versions, and
    None for a number that is not there yet. A number must be finite where the present one is.
    """
    if isinstance(present, (bool, type(None))):
        return isinstance(value, (bool, type(None))) or present is None and is_number(value)
    if isinstance(present, (int, float)):
        return is_number(value) or type(value) is float and not math.isfinite(present) or _is_single(value)
    if isinstance(present, Tensor):
        return is_number(value) or isinstance(value, Tensor) and value.shape == present.shape
    if isinstance(present, (list, tuple)):
        return isinstance(value, (list, tuple)) and all(same_kind(item, present[0]) for item in value if present)
    if isinstance(present, dict):
        return isinstance(value, dict)
    return isinstance(value, type(present))


def _is_single(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1
