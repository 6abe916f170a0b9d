"""How a teacher gets its weights, and which weights it cannot teach with."""

from __future__ import annotations

import logging

from mmengine.logging import print_log
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmlckd.checkpoints import load_weights
from mmlckd.compatibility import before_loading


class Zeros(TorchFunctionMode):
    """Torch's initialisers write zeros: random numbers take time, and the checkpoint replaces all of them anyway."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, '__module__', None) == 'torch.nn.init':
            return (kwargs['tensor'] if 'tensor' in kwargs else args[0]).detach().zero_()
        return func(*args, **kwargs)


def give_weights(model: nn.Module, checkpoint: str | None, built: bool, field: str) -> None:
    """Load a teacher's checkpoint, or let it initialise itself, and see that its weights are finite.

    Args:
        model: The teacher.
        checkpoint: Path or address; None: there is none.
        built: Whether the user built the model; without a checkpoint it keeps the weights that it has.
        field: The teacher's field, for messages.

    Raises:
        FileNotFoundError, ValueError: The checkpoint is missing, unsafe, damaged, or does not fit, or weights are
            integers or not finite.
    """
    if checkpoint is not None:
        _load(model, checkpoint, field)
        source = f'{field}.checkpoint is {checkpoint!r}'
        remedy = 'the training that wrote it diverged, so give a checkpoint from before'
    elif built:
        source, remedy = f'{field} is a built {type(model).__name__}', 'give one whose weights are finite'
    else:
        source, remedy = f'{field}.checkpoint is not given', 'its initialisation makes them, so give a checkpoint'
        print_log(f'{source}: the teacher keeps its initial weights', 'current', logging.WARNING)
        if hasattr(model, 'init_weights'):
            model.init_weights()
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f'{source}, and {name} has values that are not finite: {remedy}')


def _load(model: nn.Module, checkpoint: str, field: str) -> None:
    def refuse_integers(weights: dict[str, Tensor], *args) -> None:
        for name, own in model.state_dict().items():
            given = weights.get(name, own)
            if own.is_floating_point() and not given.is_floating_point():
                raise ValueError(
                    f'{field}.checkpoint is {checkpoint!r}, whose {name} is of {given.dtype}: '
                    'quantised weights are not read, so give the file of the network in floating point'
                )

    handle = before_loading(model, refuse_integers)
    try:
        load_weights(model, checkpoint)
    finally:
        handle.remove()
