"""Taps: named places in a network."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


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
            ValueError: The spec has another form, an unknown key or a value out of range.
        """
        if isinstance(spec, Tap):
            return spec
        fields = dict(module=spec) if isinstance(spec, str) else dict(spec) if isinstance(spec, dict) else {}
        unknown = set(fields) - set(cls.__dataclass_fields__)
        if 'module' not in fields or unknown:
            raise ValueError(
                f'tap {spec!r} is not understood: give a module path, or a dict with `module` and any of '
                'io, call, index, grid'
            )
        if fields.get('grid') is not None:
            fields['grid'] = tuple(fields['grid'])
        tap = cls(**fields)
        if tap.io not in ('input', 'output'):
            raise ValueError(f"tap {tap.module!r} has io={tap.io!r}: choose 'input' or 'output'")
        if tap.call < -1:
            raise ValueError(f'tap {tap.module!r} has call={tap.call}: count from 0, or give -1 for the last call')
        return tap

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

    def select(self, value: Any) -> Tensor:
        """The tensor this tap means in what its module gave or took.

        Raises:
            ValueError: It is a sequence and ``index`` does not name one tensor of it, or the grid does not fit.
        """
        if isinstance(value, (list, tuple)):
            if self.index is None and len(value) != 1:
                raise ValueError(
                    f'tap {self} gives a sequence of {len(value)}: name one with dict(module={self.module!r}, index=...)'
                )
            index = self.index or 0
            if not -len(value) <= index < len(value):
                raise ValueError(f'tap {self} has index={index} and its module gives {len(value)} elements')
            value = value[index]
        if not isinstance(value, Tensor):
            raise ValueError(f'tap {self} gives a {type(value).__name__}, not a tensor: tap a module inside it')
        if self.grid is not None:
            height, width = self.grid
            if value.dim() != 3 or value.shape[1] < height * width:
                raise ValueError(
                    f'tap {self} has grid={self.grid} and gives {tuple(value.shape)}: '
                    'tokens (B, N, C) with N >= H * W are needed'
                )
            value = value[:, -height * width :].mT.unflatten(2, self.grid)
        return value


def parse_taps(spec: str | Sequence, model: nn.Module, side: str) -> list[Tap]:
    """Taps of one network, checked against its modules.

    Args:
        spec: A list of tap specs, in which the preset 'resnet_preact' stands for the sums before the last ReLU of each
            stage of an OpenMMLab ResNet backbone; or that preset alone.
        model: The network.
        side: 'student' or 'teacher', for messages.

    Raises:
        ValueError: A path that the network lacks (the closest ones are listed), or an unknown preset.
    """
    if isinstance(spec, str) and spec != 'resnet_preact':
        raise ValueError(f"taps is {spec!r} for the {side}: give a list of module paths or the preset 'resnet_preact'")
    taps = []
    for item in [spec] if isinstance(spec, str) else spec:
        taps += _resnet_preact(model, side) if item == 'resnet_preact' else [Tap.parse(item)]
    paths = [path for path, _ in model.named_modules() if path]
    for tap in taps:
        if tap.module not in paths:
            close = difflib.get_close_matches(tap.module, paths, n=3, cutoff=0.3)
            raise ValueError(
                f'the {side} has no module {tap.module!r} to tap: the closest are {", ".join(map(repr, close)) or "none"}'
            )
    return taps


def _resnet_preact(model: nn.Module, side: str) -> list[Tap]:
    backbone = getattr(model, 'backbone', None)
    if not hasattr(backbone, 'res_layers'):
        raise ValueError(
            f"taps is 'resnet_preact' and the {side}'s backbone is a {type(backbone).__name__}, no OpenMMLab ResNet: "
            'list its module paths instead'
        )
    return [
        Tap(f'backbone.{stage}.{len(getattr(backbone, stage)) - 1}.relu', io='input') for stage in backbone.res_layers
    ]
