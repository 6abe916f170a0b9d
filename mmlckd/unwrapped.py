"""The network behind its wrappers."""

from __future__ import annotations

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The network itself, behind DDP, test-time augmentation and other wrappers of MMEngine's."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
