"""Taps: named modules of a network, and what flows through them in one forward."""

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

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
    index: Optional[int] = None
    grid: Optional[Tuple[int, int]] = None

    @classmethod
    def parse(cls, spec: Union[str, dict, 'Tap']) -> 'Tap':
        """Make a tap of a module path, or of a dict of this class's arguments.

        Raises:
            ValueError: The spec has another form, an unknown key or a value out of range.
        """
        if isinstance(spec, Tap):
            return spec
        fields = dict(module=spec) if isinstance(spec, str) else dict(spec) if isinstance(spec, dict) else {}
        unknown = set(fields) - set(cls.__dataclass_fields__)
        if 'module' not in fields or unknown:
            raise ValueError(f'tap {spec!r} is not understood: give a module path, or a dict with `module` and any of '
                             'io, call, index, grid')
        if fields.get('grid') is not None:
            fields['grid'] = tuple(fields['grid'])
        tap = cls(**fields)
        if tap.io not in ('input', 'output'):
            raise ValueError(f"tap {tap.module!r} has io={tap.io!r}: choose 'input' or 'output'")
        if tap.call < -1:
            raise ValueError(f'tap {tap.module!r} has call={tap.call}: count from 0, or give -1 for the last call')
        return tap

    def __str__(self) -> str:
        extras = [f'{name}={value}' for name, value in (('io', self.io), ('call', self.call), ('index', self.index))
                  if value != self.__dataclass_fields__[name].default]
        return self.module + (f' ({", ".join(extras)})' if extras else '')

    def select(self, value: Any) -> Tensor:
        """The tensor this tap means in what its module gave or took.

        Raises:
            ValueError: It is a sequence and ``index`` does not name one tensor of it, or the grid does not fit.
        """
        if isinstance(value, (list, tuple)):
            if self.index is None and len(value) != 1:
                raise ValueError(f'tap {self} gives a sequence of {len(value)}: name one with dict(module={self.module!r}, index=...)')
            index = self.index or 0
            if not -len(value) <= index < len(value):
                raise ValueError(f'tap {self} has index={index} and its module gives {len(value)} elements')
            value = value[index]
        if not isinstance(value, Tensor):
            raise ValueError(f'tap {self} gives a {type(value).__name__}, not a tensor: tap a module inside it')
        if self.grid is not None:
            height, width = self.grid
            if value.dim() != 3 or value.shape[1] < height * width:
                raise ValueError(f'tap {self} has grid={self.grid} and gives {tuple(value.shape)}: '
                                 'tokens (B, N, C) with N >= H * W are needed')
            value = value[:, -height * width:].mT.unflatten(2, self.grid)
        return value


def parse_taps(spec: Union[str, Sequence], model: nn.Module, side: str) -> List[Tap]:
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
            raise ValueError(f'the {side} has no module {tap.module!r} to tap: the closest are {", ".join(map(repr, close)) or "none"}')
    return taps


def _resnet_preact(model: nn.Module, side: str) -> List[Tap]:
    backbone = getattr(model, 'backbone', None)
    if not hasattr(backbone, 'res_layers'):
        raise ValueError(f"taps is 'resnet_preact' and the {side}'s backbone is a {type(backbone).__name__}, no OpenMMLab ResNet: "
                         'list its module paths instead')
    return [Tap(f'backbone.{stage}.{len(getattr(backbone, stage)) - 1}.relu', io='input') for stage in backbone.res_layers]


class EverythingTapped(Exception):
    """Raised inside a forward when nothing after this point is needed."""


class FeatureTap:
    """Collect the tensors at some taps during one forward, as a context manager.

        with FeatureTap(model, taps) as feats:
            model(images)
        feats[tap]                              # Tensor, with the forward's graph

    Args:
        model: The network; only forward hooks are placed, and removed on leaving.
        taps: Places to collect from.
        last_calls: For each tap the number of its last call in such a forward. Where given, the forward is ended with
            :class:`EverythingTapped` (caught here) as soon as every tap has its tensor.
        copy: Taps whose tensor is overwritten in place later on and is copied therefore.
    """

    def __init__(self, model: nn.Module, taps: Sequence[Tap], last_calls: Optional[Dict[Tap, int]] = None, copy: Sequence[Tap] = ()):
        self.model = model
        self.taps = list(dict.fromkeys(taps))
        self.last_calls = last_calls
        self.copy = set(copy)
        self.calls = Counter()
        self.feats: Dict[Tap, Tensor] = {}
        self.versions: Dict[Tap, int] = {}  # of those tensors when they were taken: a later one was overwritten in place
        self._handles = []

    def __enter__(self) -> 'FeatureTap':
        for tap in self.taps:
            module = self.model.get_submodule(tap.module)
            if tap.io == 'output':
                handle = module.register_forward_hook(lambda module, args, output, tap=tap: self._take(tap, output))
            else:
                handle = module.register_forward_pre_hook(
                    lambda module, args, kwargs, tap=tap: self._take(tap, args or tuple(kwargs.values())), with_kwargs=True)
            self._handles.append(handle)
        return self

    def __exit__(self, kind, error, trace) -> bool:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        return kind is not None and issubclass(kind, EverythingTapped)

    def __getitem__(self, tap: Tap) -> Tensor:
        if tap not in self.feats:
            raise ValueError(f'tap {tap} did not fire in this forward: it fired {self.calls[tap]} times')
        return self.feats[tap]

    def _take(self, tap: Tap, value: Any) -> None:
        call = self.calls[tap]
        self.calls[tap] += 1
        if tap.call not in (-1, call):
            return
        if self.last_calls is not None and tap.call == -1 and call != self.last_calls[tap]:
            return
        # A hook's input is always a tuple; only what is inside it can be a sequence that the tap must index.
        if tap.io == 'input' and tap.index is None:
            value = value[0]
        feat = tap.select(value)
        self.feats[tap] = feat.clone() if tap in self.copy else feat
        self.versions[tap] = self.feats[tap]._version
        if self.last_calls is not None and len(self.feats) == len(self.taps):
            raise EverythingTapped
