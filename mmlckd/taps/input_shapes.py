"""Which inputs a network may take."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from .preprocessing import Preprocessing

SIZES = (16, 32, 64, 128, 224, 320, 512)  # in px, tried in this order
LARGE = 224  # in px; above it only where nothing has worked, such as for the head of an SSD


def input_shapes(model: nn.Module) -> Iterator[tuple[int, int, int]]:
    """The (C, H, W) that a network may take, likely ones first.

    The channels are those of the data preprocessor's mean, else those of the first convolution, else 3. The sizes are
    the one that the backbone is made for, where it has one, and ``SIZES``.
    """
    mean = Preprocessing.of(model.data_preprocessor).mean if hasattr(model, 'data_preprocessor') else None
    first = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
    known = first if mean is None or mean.numel() == 1 else mean.numel()
    fixed = getattr(getattr(model, 'backbone', None), 'img_size', None)
    for channels in dict.fromkeys([known, 3]):
        for size in SIZES if fixed is None else (fixed, *SIZES):
            yield (channels, *(size if isinstance(size, (tuple, list)) else (size, size)))


def default_input_shape(model: nn.Module, size: int = 64) -> tuple[int, int, int]:
    """(C, H, W): the likeliest of :func:`input_shapes`, at a size that the backbone is made for, else the given one."""
    channels, *sides = next(input_shapes(model))
    fixed = getattr(getattr(model, 'backbone', None), 'img_size', None) is not None
    return (channels, *(sides if fixed else (size, size)))
