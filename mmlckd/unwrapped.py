"""The network behind its wrapper."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The network itself, where DDP or another of MMEngine's wrappers is around it."""
    return model.module if is_model_wrapper(model) else model
