"""What the losses of a distilled student know about the last batch."""

from __future__ import annotations

import torch
from torch import nn

from mmlckd.distillers import entries_of


def read_statistics(model: nn.Module) -> dict[str, list[float]]:
    """The statistics of all losses, by name. This waits for the device once; it is empty for any other model.

    Raises:
        ValueError: A name of a user's loss is one that this package or MMEngine gives a meaning to.
    """
    found: dict[str, list[torch.Tensor]] = {}
    for entry in entries_of(model):
        for name, values in entry.statistics().items():
            if name in ('iter', 'layers') or 'loss' in name:
                raise ValueError(
                    f"losses.{entry.name} has a statistic called {name!r}, and 'iter', 'layers' and names with 'loss' "
                    'mean something else in the log: choose another name'
                )
            found.setdefault(name, []).append(values.flatten())
    joined = {name: torch.cat(values) for name, values in found.items()}
    if not joined:
        return {}
    numbers = iter(torch.cat(list(joined.values())).tolist())
    return {name: [next(numbers) for _ in values] for name, values in joined.items()}


def panel_names(model: nn.Module) -> dict[str, list[str]]:
    """Titles of those values: under 'student' the two taps of a transmitting norm, under 'local_student' each tap."""
    names: dict[str, list[str]] = dict(student=[], local_student=[])
    for entry in entries_of(model):
        found = entry.statistics()
        paths = [str(tap).removeprefix('backbone.') for tap in entry.student_taps]
        if 'student' in found:
            names['student'] += [f'{before} to {after}' for before, after in zip(paths, paths[1:])]
        if 'local_student' in found:
            names['local_student'] += paths
    return names
