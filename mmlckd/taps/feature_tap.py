"""What flows through taps in one forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .tap import Tap


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

    def __init__(
        self, model: nn.Module, taps: Sequence[Tap], last_calls: dict[Tap, int] | None = None, copy: Sequence[Tap] = ()
    ):
        self.model = model
        self.taps = list(dict.fromkeys(taps))
        self.last_calls = last_calls
        self.copy = set(copy)
        self.calls = Counter()
        self.maps: dict[Tap, Tensor] = {}
        self.versions: dict[
            Tap, int
        ] = {}  # of those tensors when they were taken: a later one was overwritten in place
        self._handles = []

    def __enter__(self) -> FeatureTap:
        for tap in self.taps:
            module = self.model.get_submodule(tap.module)
            if tap.io == 'output':
                handle = module.register_forward_hook(lambda module, args, output, tap=tap: self._take(tap, output))
            else:
                handle = module.register_forward_pre_hook(
                    lambda module, args, kwargs, tap=tap: self._take(tap, args or tuple(kwargs.values())),
                    with_kwargs=True,
                )
            self._handles.append(handle)
        return self

    def __exit__(self, kind, error, trace) -> bool:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        return kind is not None and issubclass(kind, EverythingTapped)

    def __getitem__(self, tap: Tap) -> Tensor:
        if tap not in self.maps:
            raise ValueError(f'tap {tap} did not fire in this forward: it fired {self.calls[tap]} times')
        return self.maps[tap]

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
        self.maps[tap] = feat.clone() if tap in self.copy else feat
        self.versions[tap] = self.maps[tap]._version
        if self.last_calls is not None and len(self.maps) == len(self.taps):
            raise EverythingTapped
