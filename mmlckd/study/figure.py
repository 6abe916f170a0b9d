"""A study's results as a picture: a dot for every seed, and the way there."""

from __future__ import annotations

import statistics
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .cell import method_title
from .tables import by_method, is_guided, strongest, values


def plot_study(records: list[dict], path: Path) -> None:
    """Draw a panel for each data set: a dot for every seed's test result, method by method, and a bar for each mean.

    Below it are training curves: the mean validation result over the run, of the student alone and of the best methods
    without and with the Lipschitz term. They are left out where runs were evaluated at their end only.
    """
    groups = by_method(records)
    has_curves = any(len(record['curves']['validation']) > 1 for record in records)
    height = 0.8 + 0.32 * max(map(len, groups.values()))
    heights = [height, 2.2] if has_curves else [height]
    figure = Figure(figsize=(3.6 * len(groups) + 1.2, sum(heights) + 1), layout='constrained')
    dots, *lines = figure.subplots(len(heights), len(groups), squeeze=False, sharey='row', height_ratios=heights)
    for axis, (data, methods) in zip(dots, groups.items()):
        _draw_results(axis, methods)
        axis.set_title(data, fontsize=10)
    dots[0].invert_yaxis()
    for row in lines:
        for axis, methods in zip(row, groups.values()):
            _draw_curves(axis, methods)
        row[0].set_ylabel('validation, %')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _draw_results(axis: Axes, methods: dict[tuple[str, ...], list[dict]]) -> None:
    for y, (method, group) in enumerate(methods.items()):
        numbers = values(group, 'test')
        color = 'tab:orange' if is_guided(method) else 'tab:blue'
        axis.plot(numbers, [y] * len(numbers), 'o', color=color, alpha=0.45, markersize=5, markeredgewidth=0)
        axis.plot([statistics.fmean(numbers)] * 2, [y - 0.32, y + 0.32], color=color, linewidth=2)
    axis.set_yticks(range(len(methods)), [method_title(method) for method in methods])
    axis.set_xlabel('test result, %')
    axis.grid(axis='x', alpha=0.3)


def _draw_curves(axis: Axes, methods: dict[tuple[str, ...], list[dict]]) -> None:
    chosen = {(): 'tab:gray', strongest(methods, False): 'tab:blue', strongest(methods, True): 'tab:orange'}
    for method, color in chosen.items():
        if method is None or method not in methods:
            continue
        curves = [record['curves']['validation'] for record in methods[method]]
        curve = [statistics.fmean(points) for points in zip(*curves)]
        parts = [(i + 1) / len(curve) for i in range(len(curve))]
        axis.plot(parts, curve, 'o-', color=color, markersize=3, label=method_title(method))
    axis.set_xlabel('part of the training')
    axis.legend(fontsize=8, frameon=False, loc='upper center', bbox_to_anchor=(0.5, -0.25))
    axis.grid(alpha=0.3)
