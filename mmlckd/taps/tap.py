"""Taps: named places in a network."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


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
            fires two or three times).
        index: Which element, where the module gives or takes a list or tuple.
        grid: (H, W) that tokens (B, N, C) are laid out on; leading class tokens beyond H * W are dropped.
    """

    module: str
    io: str = 'output'
    call: int = -1
    index: int | None = None
    grid: tuple[int, int] | None = None

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
        return tap if tap.grid is None else cls(**{**fields, 'grid': tuple(tap.grid)})

    def _check(self) -> None:
        name = f'tap {self.module!r}'
        if not isinstance(self.module, str):
            raise ValueError(f'{name} is named by a {type(self.module).__name__}: give a dotted module path')
        if self.io not in ('input', 'output'):
            raise ValueError(f"{name} has io={self.io!r}: choose 'input' or 'output'")
        if not _is_int(self.call) or self.call < -1:
            raise ValueError(f'{name} has call={self.call!r}: count from 0, or give -1 for the last call')
        if self.index is not None and not _is_int(self.index):
            raise ValueError(f'{name} has index={self.index!r}: give the position of one element, counted from 0')
        if self.grid is not None:
            sides = self.grid if isinstance(self.grid, (list, tuple)) else ()
            if len(sides) != 2 or not all(_is_int(side) and side > 0 for side in sides):
                raise ValueError(f'{name} has grid={self.grid!r}: give (H, W), the rows and columns of its tokens')

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

    def select_input(self, args: tuple) -> Tensor:
        """The tensor this tap means in the arguments of its module: the first one, or the one that ``index`` names.

        Where the first argument is a sequence, ``index`` names an element of that.

        Raises:
            TapError: As :meth:`select`.
        """
        if not args:
            raise TapError(f'tap {self} takes no argument: tap the output, or another module')
        first_is_meant = self.index is None or isinstance(args[0], (list, tuple))
        return self.select(args[0] if first_is_meant else args)

    def select(self, value: Any) -> Tensor:
        """The tensor this tap means in what its module gave.

        Raises:
            TapError: It is a sequence and ``index`` does not name one tensor of it, or it is one tensor and there is an
                ``index``, or the grid does not fit.
        """
        if isinstance(value, (list, tuple)):
            value = self._element(value)
        elif self.index is not None:
            found = f'one tensor {tuple(value.shape)}' if isinstance(value, Tensor) else f'a {type(value).__name__}'
            raise TapError(f'tap {self.module!r} has index={self.index} and its module gives {found}: leave index out')
        if not isinstance(value, Tensor):
            raise TapError(f'tap {self} gives a {type(value).__name__}, not a tensor: tap a module inside it')
        return value if self.grid is None else self._on_grid(value)

    def _element(self, value: Sequence) -> Any:
        if self.index is None and len(value) != 1:
            raise TapError(
                f'tap {self} gives a sequence of {len(value)}: name one with dict(module={self.module!r}, index=...)'
            )
        index = self.index or 0
        if not -len(value) <= index < len(value):
            raise TapError(f'tap {self} has index={index} and its module gives {len(value)} elements')
        return value[index]

    def _on_grid(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) as a map (B, C, H, W)."""
        assert self.grid is not None
        height, width = self.grid
        count = height * width
        if tokens.dim() != 3 or not count <= tokens.shape[1] < 2 * count:
            raise GridError(
                f'tap {self} has grid={self.grid} and gives {tuple(tokens.shape)}: '
                f'tokens (B, N, C) with N >= H * W are needed, and fewer class tokens than the {count} of the grid'
            )
        return tokens[:, -count:].mT.unflatten(2, self.grid)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def parse_taps(spec: str | Sequence, model: nn.Module, side: str) -> list[Tap]:
    """Taps of one network, checked against its modules.

    Args:
        spec: A list of tap specs, in which the preset 'resnet_preact' stands for the sums before the last ReLU of each
            stage of an OpenMMLab ResNet backbone; or that preset alone.
        model: The network.
        side: 'student' or 'teacher', for messages.

    Raises:
        ValueError: A path that the network lacks (the closest ones are listed), an unknown preset, or no list.
    """
    if not isinstance(spec, (list, tuple)) and spec != 'resnet_preact':
        raise ValueError(f"taps is {spec!r} for the {side}: give a list of module paths or the preset 'resnet_preact'")
    taps = []
    for item in [spec] if isinstance(spec, str) else spec:
        taps += _resnet_preact(model, side) if item == 'resnet_preact' else [Tap.parse(item)]
    paths = [path for path, _ in model.named_modules() if path]
    for tap in taps:
        if tap.module not in paths:
            close = difflib.get_close_matches(tap.module, paths, n=3, cutoff=0.3)
            known = ', '.join(map(repr, close)) or 'none'
            raise ValueError(f'the {side} has no module {tap.module!r} to tap: the closest are {known}')
    return taps


def _resnet_preact(model: nn.Module, side: str) -> list[Tap]:
    backbone = getattr(model, 'backbone', None)
    if backbone is None or not hasattr(backbone, 'res_layers'):
        raise ValueError(
            f"taps is 'resnet_preact' and the {side}'s backbone is a {type(backbone).__name__}, no OpenMMLab ResNet: "
            'list its module paths instead'
        )
    return [
        Tap(f'backbone.{stage}.{len(getattr(backbone, stage)) - 1}.relu', io='input') for stage in backbone.res_layers
    ]
