"""One forward of a backbone, written down: which modules fired, in which order, and what they gave."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .forwards import device_of, left_as_it_was
from .input_shapes import input_shapes

SIZES = (64, 128, 224, 256, 512)  # in px, tried in this order


@dataclass
class Fired:
    """What one module did in a forward.

    Attributes:
        path: Its path from the model.
        side_in: Side in positions of the map or grid that it took last; 0 if it took none.
        shapes: Shapes of the tensors it gave in its last call; a dimension below 3 is kept too.
        is_sequence: Whether it gave a list or tuple.
        order: When its last call ended.
        calls: How often it fired.
    """

    path: str
    side_in: int = 0
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    is_sequence: bool = False
    order: int = -1
    calls: int = 0

    @property
    def spatial(self) -> list[int]:
        """Positions in the sequence of the elements that are maps or tokens."""
        return [i for i, shape in enumerate(self.shapes) if side_of(shape) > 1]

    @property
    def side(self) -> int:
        """Side of the one map that it gave; 0 where it gave none, or several."""
        return side_of(self.shapes[self.spatial[0]]) if len(self.spatial) == 1 else 0

    @property
    def channels(self) -> int:
        shape = self.shapes[self.spatial[0]]
        return shape[1] if len(shape) == 4 else shape[2]


@dataclass
class Trace:
    """A forward of a backbone.

    Attributes:
        size: Side of its square input in px.
        input_shape: (C, H, W) of it.
        fired: What each module did, by path.
        returned: Shapes of what the backbone returned; empty shapes stand for what is no tensor.
    """

    size: int
    input_shape: tuple[int, int, int]
    fired: dict[str, Fired]
    returned: list[tuple[int, ...]]


def side_of(shape: tuple[int, ...]) -> int:
    """Side in positions of a square map (B, C, H, W) or of tokens (B, N, C); class tokens are too few to count."""
    if len(shape) == 4:
        return shape[2] if shape[2] == shape[3] else 0
    return math.isqrt(shape[1]) if len(shape) == 3 else 0


def trace(model: nn.Module, trained: bool = False) -> Trace:
    """Run the backbone of a model on zeros, at the first size that it takes.

    Args:
        model: A model with a ``backbone``.
        trained: Run it in training mode, on two images.

    Raises:
        ValueError: It has no backbone, or takes no size that is known.
    """
    if not isinstance(getattr(model, 'backbone', None), nn.Module):
        raise ValueError(
            f"taps is 'auto' and a {type(model).__name__} has no backbone, which the rule reads: list its module paths"
        )
    failure: Exception | None = None
    for shape in _shapes(model):
        try:
            return _trace_at(model, shape, trained)
        except Exception as error:  # another size may do
            failure = failure or error
    raise ValueError(
        f"taps is 'auto' and the {type(model.backbone).__name__} does not run on square images of "
        f'{", ".join(map(str, SIZES))} px ({type(failure).__name__}: {failure}): list its module paths'
    ) from failure


def made_for(model: nn.Module) -> int | None:
    """Side in px of the images that a backbone says it is made for; None where it does not say."""
    size = getattr(model.backbone, 'img_size', None)
    return int(size[0] if isinstance(size, (tuple, list)) else size) if size is not None else None


def _shapes(model: nn.Module) -> Iterator[tuple[int, int, int]]:
    fixed = made_for(model)
    sizes = SIZES if fixed is None else (SIZES[0], fixed, *SIZES[1:])
    for channels in dict.fromkeys(shape[0] for shape in input_shapes(model)):
        for size in sizes:
            yield channels, size, size


def _trace_at(model: nn.Module, shape: tuple[int, int, int], trained: bool) -> Trace:
    fired: dict[str, Fired] = {}
    order = iter(range(1 << 40))

    def enter(path: str, args: tuple) -> None:
        took = _tensors(args[0]) if args else []
        fired.setdefault(path, Fired(path)).side_in = max((side_of(tuple(feat.shape)) for feat in took), default=0)

    def leave(path: str, output: Any) -> None:
        record = fired.setdefault(path, Fired(path))
        record.calls += 1
        record.order = next(order)
        record.is_sequence = isinstance(output, (list, tuple))
        record.shapes = _shapes_of(output)

    handles = []
    with left_as_it_was(model), torch.no_grad():
        model.train(trained)
        for path, module in model.backbone.named_modules(prefix='backbone'):
            handles.append(module.register_forward_pre_hook(lambda _, args, path=path: enter(path, args)))
            handles.append(module.register_forward_hook(lambda _, args, output, path=path: leave(path, output)))
        try:
            images = torch.zeros(2 if trained else 1, *shape, device=device_of(model))
            returned = model.backbone(images)
        finally:
            for handle in handles:
                handle.remove()
    return Trace(shape[1], shape, fired, _shapes_of(returned))


def _shapes_of(value: Any) -> list[tuple[int, ...]]:
    parts = value if isinstance(value, (list, tuple)) else [value]
    return [tuple(part.shape) if isinstance(part, Tensor) else () for part in parts]


def _tensors(value: Any) -> list[Tensor]:
    parts = value if isinstance(value, (list, tuple)) else [value]
    return [part for part in parts if isinstance(part, Tensor)]
