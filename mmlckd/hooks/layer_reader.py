"""Norms of a network's layers while it is trained: read, and held to a bound where asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from mmengine.dist import broadcast, broadcast_object_list
from mmengine.logging import print_log
from torch import nn

from mmlckd.analysis.layer_norms import LayerNorms


class LayerReader:
    """Reads the operator norms of some layers at their real input sizes, and bounds them.

    Its life: :meth:`watch` before the first iteration, :meth:`settle` after it, then :meth:`read` any number of times.

    Args:
        model: Any network.
        layers, num_iters, fold_norms, max_norm: See :class:`SpectralNormHook`.

    Raises:
        ValueError: The expressions select nothing, or are wrong.

    Source: this project. The projection is that of Gouk et al., Regularisation of neural networks by enforcing
    Lipschitz continuity (2021).
    """

    MARGIN = 1e-3  # The projection aims this much below the bound: more than the error of an estimate.
    TOLERANCE = 1e-2  # A norm this much above the bound, right after its projection, does not follow its weight.

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str],
        num_iters: int,
        fold_norms: bool,
        max_norm: float | None,
    ):
        self.norms = LayerNorms(model, layers, fold_norms)
        self.layers = layers
        self.num_iters = num_iters
        self.max_norm = max_norm
        self._watching: ExitStack | None = None

    def watch(self, sizes: dict[str, tuple]) -> None:
        """Learn each layer's input size in the coming forwards, but for those that a resumed run knows already."""
        self.norms.shapes.update(sizes)  # The first batch of a resumed run may have other sizes.
        self._watching = ExitStack()
        self._watching.enter_context(self.norms.watch())

    @property
    def is_watching(self) -> bool:
        return self._watching is not None

    def settle(self) -> dict[str, tuple]:
        """Stop watching, after the first iteration, and return the sizes by layer.

        All ranks take those of the first one: with other sizes they would scale their weights differently.

        Raises:
            ValueError: A layer did not run, so its bound would not hold.
        """
        if self._watching is not None:
            self._watching.close()
            self._watching = None
        shared = [(self.norms.shapes, self.norms.folded)]
        broadcast_object_list(shared)
        self.norms.shapes, self.norms.folded = shared[0]
        self._check_seen()
        return self.norms.shapes

    def _check_seen(self) -> None:
        unseen = [name for name in self.norms.layers if name not in self.norms.shapes]
        if not unseen:
            return
        more = f' and {len(unseen) - 1} more' if len(unseen) > 1 else ''
        found = f'layers is {self.layers!r} and selects {unseen[0]!r}{more}, not run in the first iteration'
        if self.max_norm is not None:
            raise ValueError(f'{found}, so that max_norm cannot hold there: select without them')
        print_log(f'{found}: no norm is read there', 'current', logging.WARNING)

    def read(self, last: bool) -> dict[str, float]:
        """The norms by layer, after they are bounded.

        Args:
            last: Whether this is the training's last reading. It bounds by a converged estimate.

        Raises:
            ValueError: A norm does not follow its weight.
        """
        converge = not self.norms.vectors or (last and self.max_norm is not None)
        norms = self.norms.measure(None if converge else self.num_iters)
        if self.max_norm is None:
            return dict(zip(self.norms.names, norms.tolist()))
        broadcast(norms)
        target = self.max_norm * (1 - self.MARGIN)
        self.norms.scale(torch.where(norms > target, target / norms, 1.0))
        # One more iteration from the vector just found reads what became of the norm.
        reading = dict(zip(self.norms.names, self.norms.measure(1).tolist()))
        self._check_bound(reading, self.max_norm)
        return reading

    def _check_bound(self, reading: dict[str, float], max_norm: float) -> None:
        for name, value in reading.items():
            if value > (1 + self.TOLERANCE) * max_norm and self.norms.is_trained(name):
                raise ValueError(
                    f'max_norm is {max_norm} and {name!r} has norm {value:.3g} after its weight was scaled to that: it '
                    'normalises or parametrises its weight, so select layers without it'
                )

    def forget(self) -> None:
        """Drop the singular vectors, so that the next reading converges, as that of a resumed run does."""
        self.norms.vectors.clear()
