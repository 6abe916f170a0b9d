"""One training step's comparison of a student with its teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmlckd.compatibility import is_compiling
from mmlckd.functional import AffineMap
from mmlckd.taps import FeatureTap, Tap

from .first_step import FirstStep
from .loss_entry import LossEntry
from .remade import Kept


class Comparison:
    """The losses of one step.

    The maps of the first view may be handed over one by one, as the student gives them. Losses that can compare them at
    once do so, while little of the student's forward is kept, and what they need of the teacher is free again.

    Args:
        entries: The losses.
        connectors: The connectors by their names.
        targets: What each loss needs of its teacher, by the loss's name. They are used up.
        last_calls: For each tap of the student the number of its module's last call in a forward.
        lets_go: Let go of maps that no loss needs any more, where the backward pass can have them made again.

    Source: this project.
    """

    def __init__(
        self,
        entries: Sequence[LossEntry],
        connectors: nn.ModuleDict,
        targets: dict[str, Any],
        last_calls: Mapping[Tap, int],
        lets_go: bool,
    ):
        self.entries, self.connectors, self.targets, self.last_calls = entries, connectors, targets, last_calls
        self._with_grad = torch.is_grad_enabled()
        self.lets_go = lets_go
        self._kept = Kept()
        self._connected: dict[tuple[str, str, Tap], Tensor | AffineMap] = {}
        self._arrived: dict[str, list[Tensor | AffineMap | None]] = {
            entry.name: [None] * len(entry.student_taps)
            for entry in entries
            if entry.streams and entry.views == 'first'
        }

    def arrive(self, tap: Tap, feat: Tensor, call: int) -> list[Tap]:
        """Compare a map of the first view, as far as losses can do without the others.

        Returns:
            The taps whose maps nobody needs any more.

        Raises:
            ValueError: The tap means the last call of its module, and there are more than in the dry run.
        """
        if is_compiling() or (tap.call == -1 and call < self.last_calls[tap]):
            return []
        self._kept.arrive(tap, feat)
        # As outside of the student's forward. A block of it may be frozen under no_grad, or a checkpoint, which would
        # take all that is kept for the backward pass as its own.
        with torch.set_grad_enabled(self._with_grad), self._kept.hooks():
            self._arrive(tap, feat, call)
        return self._let_go() if self.lets_go else []

    def _arrive(self, tap: Tap, feat: Tensor, call: int) -> None:
        for entry in self.entries:
            maps = self._arrived.get(entry.name)
            if maps is None or tap not in entry.student_taps:
                continue
            for i in [i for i, other in enumerate(entry.student_taps) if other == tap]:
                if maps[i] is not None:
                    calls = self.last_calls[tap] + 1
                    raise ValueError(
                        f"the student's tap {tap} fired {call + 1} times in one forward, and {calls} times in the dry "
                        f"run: name the call that you mean, as dict(module='{tap.module}', call={calls - 1})"
                    )
                maps[i] = self._connect(entry, i, feat)
            entry.loss.compare_early(maps, self.targets[entry.name])

    def _let_go(self) -> list[Tap]:
        """The taps that every loss is through with, and whose maps can be made again; here they are gone already."""
        found = [tap for tap in self._kept.remade if not any(self._needs(entry, tap) for entry in self.entries)]
        self._connected = {place: feat for place, feat in self._connected.items() if place[-1] not in found}
        return found

    def _needs(self, entry: LossEntry, tap: Tap) -> bool:
        """Whether a loss still needs the map of the first view."""
        if entry.views == 'second' or tap not in entry.student_taps:
            return False
        maps = self._arrived.get(entry.name)
        return maps is None or any(
            feat is None or feat.device.type != 'meta' for feat, other in zip(maps, entry.student_taps) if other == tap
        )

    def losses(self, student_feats: Sequence[FeatureTap], first: FirstStep | None) -> dict[str, Tensor]:
        """The value of every loss, by its name.

        Args:
            student_feats: The maps of the first view, and of the second where there is one.
            first: What looks at the step, if it is the first.
        """
        values = {}
        for entry in self.entries:
            arrived = self._arrived.get(entry.name)
            maps = []
            for i, feat in enumerate(entry.select(student_feats, entry.student_taps)):
                there = arrived[i] if arrived is not None else None
                maps.append(self._connect(entry, i, feat) if there is None else there)
            if first is not None:
                first.before(maps)
            values[entry.name] = entry.compare(maps, self.targets.pop(entry.name))
            if first is not None:
                first.after(entry, maps)
        return values

    def _connect(self, entry: LossEntry, index: int, feat: Tensor) -> Tensor | AffineMap:
        """A student's map after its connector, where it has one. Losses share what connectors give."""
        if not entry.connectors:
            return feat
        place = entry.places[index]
        if place not in self._connected:
            connector = self.connectors[place[0]]
            streams = all(other.streams for other in self.entries if place in other.places)
            self._connected[place] = connector.fold(feat) if streams else connector(feat)
        return self._connected[place]
