"""The states of all random generators of a process."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from .plain_values import is_count, is_list_of, is_number


def random_state() -> dict[str, Any]:
    """State of every generator of this process: Python, numpy, torch, and its GPU if it has one."""
    state = dict(python=random.getstate(), numpy=np.random.get_state(), torch=torch.get_rng_state())
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what :func:`random_state` took."""
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'].cpu())  # MMEngine's resume puts all tensors on the GPU
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def is_random_state(value: Any) -> bool:
    """Whether a value is what :func:`random_state` gives. numpy does not look at the place in its state."""
    if not isinstance(value, dict) or not {'python', 'numpy', 'torch'} <= set(value):
        return False
    return _is_pythons(value['python']) and _is_numpys(value['numpy']) and _are_torchs(value)


def _is_pythons(value: Any) -> bool:
    if not isinstance(value, tuple) or len(value) != 3 or value[0] != 3 or not is_list_of(value[1], is_count):
        return False
    return len(value[1]) == 625 and max(value[1]) < 2**32 and value[1][-1] <= 624 and _is_none_or_number(value[2])


def _is_numpys(value: Any) -> bool:
    if not isinstance(value, tuple) or len(value) != 5 or value[0] != 'MT19937' or not isinstance(value[1], np.ndarray):
        return False
    _, numbers, place, has_gauss, gauss = value
    sound = numbers.shape == (624,) and numbers.dtype == np.uint32
    return sound and is_count(place) and place <= 624 and has_gauss in (0, 1) and is_number(gauss)


def _are_torchs(value: dict) -> bool:
    states = [value[name] for name in ('torch', 'cuda') if name in value]
    if not all(isinstance(state, torch.Tensor) and state.dtype == torch.uint8 and state.dim() == 1 for state in states):
        return False
    try:
        torch.Generator().set_state(states[0].cpu())
    except RuntimeError:  # torch looks at it itself
        return False
    return True


def _is_none_or_number(value: Any) -> bool:
    return value is None or is_number(value)
