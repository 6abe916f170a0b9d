"""What flows through taps in one forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmlckd.compatibility import is_compiling
from mmlckd.functional import outline

from .tap import Tap


class EverythingTapped(Exception):
    """Raised inside a forward when nothing after this point is needed."""


class FeatureTap:
    """Collect the tensors at some taps during one forward, as a context manager.

        with FeatureTap(model, taps) as feats:
            model(images)
        feats[tap]                              # Tensor, with the forward's graph

    Args:
        model: The network. It only gets forward hooks, which are removed on leaving.
        taps: Places to collect from.
        last_calls: For each tap the number of its last call in such a forward. Where given, the forward is ended with
            :class:`EverythingTapped` (caught here) as soon as every tap has its tensor.
        copy: Taps whose tensor is overwritten in place later on, so that a copy is collected.
        images: Where given, only the forward whose ``backbone`` takes this very tensor is collected from, of several.
        arrive: Called with each tap, its tensor and the number of the call, as soon as it is collected. It returns the
            taps whose tensors are needed no more: their outlines take their place.

    Attributes:
        maps: The tensors by tap.
        size: (height, width) in px of what the network's ``backbone`` took; None where it has none.
        shapes: The shapes of what was collected or passed by, call by call.
        calls: How often each tap's module fired.
        overwritten: On leaving, the taps whose tensor was overwritten in place after it was collected.
        without_grad: The taps that were collected while gradients were switched off.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Sequence[Tap],
        last_calls: dict[Tap, int] | None = None,
        copy: Sequence[Tap] = (),
        images: torch.Tensor | None = None,
        arrive: Callable[[Tap, Tensor, int], list[Tap]] | None = None,
    ):
        self.model = model
        self.taps = list(dict.fromkeys(taps))
        self.last_calls = last_calls
        self.copy = set(copy)
        self.images = images
        self.arrive = arrive
        self.calls = Counter()
        self.maps: dict[Tap, Tensor] = {}
        self.size: tuple[int, int] | None = None
        self.shapes: dict[Tap, list[tuple[int, ...]]] = {tap: [] for tap in self.taps}
        self.overwritten: list[Tap] = []
        self.without_grad: set[Tap] = set()
        self._originals: dict[Tap, tuple[Tensor, int]] = {}  # with their version counters when they were collected
        self._handles = []
        self._collecting = images is None

    def __enter__(self) -> FeatureTap:
        backbone = getattr(self.model, 'backbone', None)
        wanted = self.images is not None or any(tap.grid == 'auto' for tap in self.taps)
        if isinstance(backbone, nn.Module) and wanted:
            self._handles.append(backbone.register_forward_pre_hook(lambda module, args: self._see_images(args)))
        for tap in self.taps:
            module = self.model.get_submodule(tap.module)
            if tap.io == 'output':
                handle = module.register_forward_hook(
                    lambda module, args, output, tap=tap: self._collect(tap, output, tap.select)
                )
            else:
                handle = module.register_forward_pre_hook(
                    lambda module, args, kwargs, tap=tap: self._collect(
                        tap, args or tuple(kwargs.values()), tap.select_input
                    ),
                    with_kwargs=True,
                )
            self._handles.append(handle)
        return self

    def __exit__(self, kind, error, trace) -> bool:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.overwritten = [tap for tap, (feat, version) in self._originals.items() if feat._version != version]
        self._originals.clear()
        return kind is not None and issubclass(kind, EverythingTapped)

    def __getitem__(self, tap: Tap) -> Tensor:
        if tap not in self.maps:
            raise ValueError(f'tap {tap} did not fire in this forward: it fired {self.calls[tap]} times')
        return self.maps[tap]

    def refuse_overwritten(self, side: str) -> None:
        """See that every collected map still is what its module gave; for after the forward, and free of any wait.

        Raises:
            ValueError: A map was overwritten in place and no copy was collected.
        """
        for tap in self.overwritten:
            if tap not in self.copy:
                raise ValueError(
                    f"the {side}'s map at {tap} was overwritten in place after it was taken: set inplace=False in the "
                    'module that follows it (an activation or dropout), or tap another module'
                )

    def _see_images(self, args: tuple) -> None:
        self._collecting = self.images is None or (len(args) > 0 and args[0] is self.images)
        if args and isinstance(args[0], Tensor) and args[0].dim() == 4:
            self.size = args[0].shape[2], args[0].shape[3]

    def _collect(self, tap: Tap, value: Any, select) -> None:
        if not self._collecting:
            return
        call = self.calls[tap]
        self.calls[tap] += 1
        if tap.call not in (-1, call):
            return
        if self.last_calls is not None and tap.call == -1 and call != self.last_calls[tap]:
            return
        feat = select(value, self.size)
        self.shapes[tap].append(tuple(feat.shape))
        if not is_compiling():  # a compiled graph counts no versions as they are; the dry run has looked without it
            self._originals[tap] = feat, feat._version
        self.maps[tap] = feat.clone() if tap in self.copy else feat
        if torch.is_grad_enabled():
            self.without_grad.discard(tap)
        else:
            self.without_grad.add(tap)
        if self.arrive is not None:
            for done in self.arrive(tap, self.maps[tap], call):
                self.maps[done] = outline(self.maps[done])
                self._originals.pop(done, None)
        if self.last_calls is not None and len(self.maps) == len(self.taps):
            raise EverythingTapped
