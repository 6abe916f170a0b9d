"""Taps: named places in a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .grids import find_grid, grid_beside, lay_out


class TapError(ValueError):
    """A tap does not fit what its module takes or gives."""


class GridError(TapError):
    """The grid of a tap does not fit its tokens; at another input size it may."""


@dataclass(frozen=True)
class Tap:
    """One place in a network.

    Args:
        module: Dotted module path.
        io: 'output' or 'input' of that module.
        call: Which of its calls in one forward, counted from 0; -1 is the last (a ResNet block's one ``relu``
            fires two or three times). 'all' stands for a tap for each call; :func:`.parse_taps` makes them.
        index: Which element, where the module gives or takes a list or tuple of several tensors.
        grid: (H, W) that tokens (B, N, C) are laid out on; leading class tokens beyond H * W are dropped. 'auto': the
            grid that the module gives beside its tokens, as Swin's stages do, else the one that follows from the size
            of the image. Maps stay as they are.
    """

    module: str
    io: str = 'output'
    call: int | str = -1
    index: int | None = None
    grid: tuple[int, int] | str | None = None

    @classmethod
    def parse(cls, spec: str | dict | Tap) -> Tap:
        """Make a tap of a module path, or of a dict of this class's arguments.

        Raises:
            ValueError: The spec has another form, an unknown key, or a value of a wrong type or out of range.
        """
        if isinstance(spec, Tap):
            return spec
        fields = dict(module=spec) if isinstance(spec, str) else spec
        if not isinstance(fields, dict) or 'module' not in fields or set(fields) - set(cls.__dataclass_fields__):
            raise ValueError(
                f'tap {spec!r} is not understood: give a module path, or a dict with `module` and any of '
                'io, call, index, grid'
            )
        tap = cls(**fields)
        tap._check()
        return cls(**{**fields, 'grid': tuple(tap.grid)}) if isinstance(tap.grid, list) else tap

    def _check(self) -> None:
        name = f'tap {self.module!r}'
        if not isinstance(self.module, str):
            raise ValueError(f'{name} is named by a {type(self.module).__name__}: give a dotted module path')
        if self.io not in ('input', 'output'):
            raise ValueError(f"{name} has io={self.io!r}: choose 'input' or 'output'")
        counted = isinstance(self.call, int) and not isinstance(self.call, bool) and self.call >= -1
        if not counted and self.call != 'all':
            raise ValueError(f"{name} has call={self.call!r}: count from 0, or give -1 for the last call or 'all'")
        if self.index is not None and not _is_int(self.index):
            raise ValueError(f'{name} has index={self.index!r}: give the position of one element, counted from 0')
        if self.grid not in (None, 'auto'):
            sides = self.grid if isinstance(self.grid, (list, tuple)) else ()
            if len(sides) != 2 or not all(_is_int(side) and side > 0 for side in sides):
                raise ValueError(
                    f"{name} has grid={self.grid!r}: give 'auto' or (H, W), the rows and columns of its tokens"
                )

    def __str__(self) -> str:
        """For messages."""
        return self.module + self._extras()

    @property
    def key(self) -> str:
        """For checkpoints, which name connectors by it: this form may never change."""
        return self.module + self._extras()

    def _extras(self) -> str:
        values = (('io', self.io), ('call', self.call), ('index', self.index))
        extras = [f'{name}={value}' for name, value in values if value != self.__dataclass_fields__[name].default]
        return f' ({", ".join(extras)})' if extras else ''

    def select_input(self, args: tuple, size: Sequence[int] | None = None) -> Tensor:
        """The tensor this tap means in the arguments of its module: the first one, or the one that ``index`` names.

        Where the first argument is a sequence, ``index`` names an element of that.

        Raises:
            TapError: As :meth:`select`.
        """
        if not args:
            raise TapError(f'tap {self} takes no argument: tap the output, or another module')
        if isinstance(args[0], (list, tuple)):
            return self.select(args[0], size)
        return self._laid_out(*self._element(args, self.index or 0), size)

    def select(self, value: Any, size: Sequence[int] | None = None) -> Tensor:
        """The tensor this tap means in what its module gave.

        Args:
            value: What it gave: a tensor, or a sequence of which ``index`` names a tensor or which has only one.
            size: (height, width) of the image in px, for ``grid='auto'``; None: it is square.

        Raises:
            TapError: It is a sequence and ``index`` does not name one tensor of it, or it is one tensor and there is an
                ``index``, or the grid does not fit.
        """
        if isinstance(value, (list, tuple)):
            return self._laid_out(*self._element(value, self._position(value)), size)
        if self.index is not None:
            raise TapError(
                f'tap {self.module!r} has index={self.index} and its module gives {_kind(value)}: leave index out'
            )
        return self._laid_out(value, None, size)

    def _position(self, values: Sequence) -> int:
        """Which of several values is meant."""
        if self.index is not None:
            return self.index
        tensors = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
        if len(values) != 1 and len(tensors) != 1:
            kinds = ', '.join(f'{i}: {_kind(value)}' for i, value in enumerate(values))
            raise TapError(
                f'tap {self} gives a sequence of {len(values)} ({kinds}): name one with dict(module={self.module!r}, '
                'index=...)'
            )
        return tensors[0] if tensors else 0

    def _element(self, values: Sequence, index: int) -> tuple[Any, Any]:
        """One of several values, and the one after it, which may be its grid."""
        if not -len(values) <= index < len(values):
            verb = 'takes' if self.io == 'input' else 'gives'
            raise TapError(f'tap {self} has index={index} and its module {verb} {len(values)} elements')
        following = index % len(values) + 1
        return values[index], values[following] if following < len(values) else None

    def _laid_out(self, value: Any, beside: Any, size: Sequence[int] | None) -> Tensor:
        if not isinstance(value, Tensor):
            raise TapError(f'tap {self} gives {_kind(value)}, not a tensor: tap a module inside it')
        if self.grid is None or (self.grid == 'auto' and value.dim() == 4):
            return value
        grid = self.grid
        if isinstance(grid, str):
            grid = self._grid_of(value, beside, size)
        try:
            return lay_out(value, grid)
        except ValueError as error:
            raise GridError(f'tap {self} has grid={self.grid} and gives {tuple(value.shape)}: {error}') from error

    def _grid_of(self, tokens: Tensor, beside: Any, size: Sequence[int] | None) -> tuple[int, int]:
        if tokens.dim() != 3:
            raise TapError(
                f"tap {self} has grid='auto' and gives {tuple(tokens.shape)}: tokens (B, N, C) are laid out, so leave "
                'grid out'
            )
        grid = grid_beside(tokens, beside) or find_grid(tokens.shape[1], size)
        if grid is None:
            image = 'a square image' if size is None else f'an image of {size[0]} x {size[1]} px'
            raise GridError(
                f"tap {self} has grid='auto' and its {tokens.shape[1]} tokens are no grid of {image}, with or without "
                'class tokens: give grid=(H, W), or leave grid out to compare token by token'
            )
        return grid


def _kind(value: Any) -> str:
    """A value in a message: a tensor by its shape."""
    return f'one tensor {tuple(value.shape)}' if isinstance(value, Tensor) else f'a {type(value).__name__}'


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
