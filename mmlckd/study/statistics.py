"""Paired comparisons: whether a difference between two methods is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

import numpy as np
from scipy import stats


class Comparison(NamedTuple):
    """Mean difference over paired runs, the 95 % interval's half width, and the paired t test's p-value.

    Where all differences are equal, their spread is not known: interval and p-value are NaN, or 0 and 1 if they are 0.
    """

    difference: float
    half_width: float
    p_value: float
    pairs: int


def compare(values: Sequence[float], baseline: Sequence[float]) -> Comparison:
    """Compare two methods run by run, with the same seeds.

    Args:
        values, baseline: Results, at least two. Those at the same place had the same seed.

    Raises:
        ValueError: Unequal or too few numbers.

    Source: Student's paired t test. With fewer than about ten pairs it assumes that the differences are normally
    distributed.
    """
    if len(values) != len(baseline) or len(values) < 2:
        raise ValueError(
            f'{len(values)} results against {len(baseline)}: a paired comparison needs as many on both sides, at least '
            'two'
        )
    differences = np.subtract(values, baseline)
    mean = differences.mean()
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    if error == 0:
        nothing = mean == 0
        return Comparison(float(mean), 0.0 if nothing else nan, 1.0 if nothing else nan, len(differences))
    freedom = len(differences) - 1
    return Comparison(
        float(mean),
        float(stats.t.ppf(0.975, freedom) * error),
        float(2 * stats.t.sf(abs(mean) / error, freedom)),
        len(differences),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number: one is below a level only if its test holds together with all others.

    NaN stands for no test, and stays.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    count = int(np.isfinite(p_values).sum())
    adjusted, largest = [nan] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values)[:count]):  # NaN comes last
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
