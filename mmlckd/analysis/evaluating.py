"""Networks as they are when they are analysed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, without recomputed activations (``with_cp``), which have no forward-mode derivative; all as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    recomputing = [module for module in model.modules() if getattr(module, 'with_cp', False)]
    model.eval()
    for module in recomputing:
        module.with_cp = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module in recomputing:
            module.with_cp = True
