"""Networks as they are when they are analysed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, with everything back as it was afterwards.

    Activations are kept and not recomputed (``with_cp``), since recomputing has no forward-mode derivative.
    """
    modes = [(module, module.training) for module in model.modules()]
    recomputing: list[Any] = [module for module in model.modules() if getattr(module, 'with_cp', False)]
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
