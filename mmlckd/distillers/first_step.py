"""What is looked at in the first training step: gradients, maps that losses share, and what losses warn of."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from mmlckd.compatibility import not_compiled
from mmlckd.functional import AffineMap
from mmlckd.taps import FeatureTap

from .gradient_check import check_gradients, check_values
from .loss_entry import LossEntry


class FirstStep:
    """A look at one training step, from before the first loss to after the last. It waits for nothing.

    Args:
        entries: The losses, in the order in which they are computed.
        student_feats: The student's maps in the first view and the second.
        targets: What each loss needs of its teacher, by the loss's name.

    Raises:
        ValueError: A loss teaches the student nothing.

    Source: this project.
    """

    @not_compiled  # here and below: graphs and version counters are only there outside a compiled region
    def __init__(self, entries: Sequence[LossEntry], student_feats: Sequence[FeatureTap], targets: Mapping[str, Any]):
        check_gradients(entries, student_feats)
        self.student_feats = student_feats
        self.waiting = {entry.name: entry for entry in entries}
        self._shared = {
            entry.name: [
                *(feats[tap] for feats in entry.looked_at(student_feats) for tap in entry.student_taps),
                *_tensors_in(targets[entry.name]),
            ]
            for entry in entries
        }
        self._versions = {name: _versions(tensors) for name, tensors in self._shared.items()}

    @not_compiled
    def before(self, maps: Sequence[Tensor | AffineMap]) -> None:
        """Remember the maps of the loss that comes now."""
        self._own = _versions(maps)

    @not_compiled
    def after(self, entry: LossEntry, maps: Sequence[Tensor | AffineMap]) -> None:
        """See that a loss left the maps of those after it as they were.

        Raises:
            ValueError: It did not.
        """
        del self.waiting[entry.name]
        changed = _versions(maps) != self._own
        for name, other in self.waiting.items():
            joined = set(entry.connectors or ()) & set(other.connectors or ()) and entry.views == other.views
            if _versions(self._shared[name]) != self._versions[name] or (joined and changed):
                raise ValueError(
                    f'losses.{entry.name} changes maps in place that losses.{name} compares, too: let it work on '
                    'copies, for example by inplace=False in its activations'
                )

    @not_compiled
    def end(self, entries: Sequence[LossEntry], losses: Mapping[str, Tensor]) -> None:
        """See that every loss has a gradient to the student, and log what the losses warn of.

        Raises:
            ValueError: One has none.
        """
        feats = self.student_feats[0]
        check_values(losses, feats.model)
        for entry in entries:
            for warning in entry.warnings([feats[tap].shape for tap in entry.student_taps]):
                print_log(warning, 'current', logging.WARNING)


def _versions(tensors: Sequence[Tensor | AffineMap]) -> list[int]:
    """How often each tensor, or one that shares its memory, was changed in place."""
    return [(tensor.feat if isinstance(tensor, AffineMap) else tensor)._version for tensor in tensors]


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(item)
