"""Paired comparisons: what a difference between two methods is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Comparison(NamedTuple):
    """Mean difference over paired runs, the 95 % interval's half width, and the paired t test's p-value."""

    difference: float
    half_width: float
    p_value: float
    pairs: int


def compare(values: Sequence[float], baseline: Sequence[float]) -> Comparison:
    """Two methods, run by run with the same seeds.

    Args:
        values, baseline: Results, of which those at the same place had the same seed; at least two.

    Raises:
        ValueError: Unequal or too few numbers.

    Source: Student's paired t test; with fewer than about ten pairs it leans on the differences being normally distributed.
    """
    if len(values) != len(baseline) or len(values) < 2:
        raise ValueError(
            f'{len(values)} results against {len(baseline)}: a paired comparison needs as many on both sides, at least two'
        )
    differences = np.subtract(values, baseline)
    mean, error = differences.mean(), differences.std(ddof=1) / np.sqrt(len(differences))
    if error == 0:
        return Comparison(float(mean), 0.0, 1.0 if mean == 0 else 0.0, len(differences))
    freedom = len(differences) - 1
    return Comparison(
        float(mean),
        float(stats.t.ppf(0.975, freedom) * error),
        float(2 * stats.t.sf(abs(mean) / error, freedom)),
        len(differences),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm, 1979): below a level only if the test holds beside all others at that level."""
    count, adjusted, largest = len(p_values), [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
