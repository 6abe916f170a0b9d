"""Where the number of operations counts, and not their size."""

from __future__ import annotations

from torch import Tensor

_DEVICES = {'cuda'}


def bound_by_launches(feat: Tensor) -> bool:
    """Whether a tensor's device takes longer to start a small operation than to do it, as GPUs do."""
    return feat.device.type in _DEVICES
