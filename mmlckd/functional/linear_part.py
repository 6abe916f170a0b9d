"""The linear part of an affine module: x to A x, of a module that gives A x + b."""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

_KINDS = (_ConvNd, nn.Linear, _BatchNorm)
_OFFSETS = ('bias', 'running_mean')  # all that these do in the modules above is to add
_OTHERS = ('weight', 'running_var', 'num_batches_tracked')


def linear_part(module: nn.Module, origin: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that applies A, without adding b and taking it away again: a large b would round A x away.

    Convolutions, linear layers and batch norms in evaluation mode, and modules made of them, run with zeros for their
    biases and running means; what else a forward adds, a constant written in it, is subtracted. Any module that holds
    other parameters or buffers is differentiated along x in forward mode, which costs two to three times as much.

    Args:
        module: Affine in its one tensor argument.
        origin: Zeros, of the shape, type and device of that argument.

    Returns:
        A function of x, differentiable in x and in the module's weights. It does not depend on the biases.

    Raises:
        NotImplementedError: torch's, at a call, where a module has other parameters and an operation without
            forward-mode derivative.

    Source: this project.
    """
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    if not all(_is_known(module, name) for name in state):
        return lambda x: jvp(module, (origin,), (x,))[1]
    zeros = {name: torch.zeros_like(value) for name, value in state.items() if _last(name) in _OFFSETS}
    with torch.no_grad():
        rest = functional_call(module, zeros, (origin,))
    return lambda x: functional_call(module, zeros, (x,)) - rest


def _is_known(module: nn.Module, name: str) -> bool:
    """Whether it is plain what a parameter or buffer does, by its name and its owner."""
    owner = module.get_submodule(name.rpartition('.')[0])
    return isinstance(owner, _KINDS) and _last(name) in (*_OFFSETS, *_OTHERS)


def _last(name: str) -> str:
    return name.rpartition('.')[2]
