"""A study's results as pictures: a dot for every seed, the way there, and what it cost."""

from __future__ import annotations

import statistics
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .cell import method_title
from .tables import by_method, is_guided, strongest, values, with_cost

MARKERS = 'osD^v<>P*X'


def plot_study(records: list[dict], path: Path) -> Path:
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
    return path


def plot_cost(records: list[dict], path: Path) -> Path | None:
    """Draw what each method gains over the student alone against its cost: a dot for every seed, a ring for the mean.

    A column for each data set, and a row each for accuracy and for accuracy under FGSM. Methods with the transmitting
    term are left out. Nothing is drawn, and None returned, where a data set has no student alone.
    """
    records = with_cost(records)
    rows = [name for name in ('test', 'FGSM 8') if name in records[0]]
    if 'cost' not in records[0]:
        return None
    groups = by_method(records)
    figure = Figure(figsize=(2.9 * len(groups) + 0.4, 2.6 * len(rows) + 1.1), layout='constrained')
    shown = dict.fromkeys(name for methods in groups.values() for name in methods if name and 'lipschitz' not in name)
    axes = figure.subplots(len(rows), len(groups), squeeze=False, sharex='col')
    for line, measure in zip(axes, rows):
        for axis, methods in zip(line, groups.values()):
            for i, method in enumerate(shown):
                if method in methods:
                    color = 'tab:orange' if is_guided(method) else f'C{(0, 2, 4, 5, 7, 8, 9)[i % 7]}'
                    _draw_gain(axis, methods[method], methods[()], measure, color, MARKERS[i % len(MARKERS)])
            axis.axhline(0, color='black', linewidth=0.8)
            axis.grid(alpha=0.3)
        line[0].set_ylabel(f'{measure}, points over alone')
    for axis, data in zip(axes[0], groups):
        axis.set_title(data, fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel('cost, trainings of the student alone')
    handles, _ = axes[0][0].get_legend_handles_labels()
    figure.legend(
        handles, list(map(method_title, shown)), loc='outside lower center', ncols=3, frameon=False, fontsize=8
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def _draw_gain(axis: Axes, group: list[dict], alone: list[dict], measure: str, color: str, marker: str) -> None:
    """A method's seeds, each against the student alone of the same seed, and their mean."""
    start = {record['seed']: record[measure] for record in alone}
    pairs = [(record['cost'], record[measure] - start[record['seed']]) for record in group if record['seed'] in start]
    costs, gains = zip(*pairs)
    middle = statistics.median(costs)
    axis.plot([middle] * len(gains), gains, marker, color=color, alpha=0.35, markersize=4, markeredgewidth=0)
    mean = statistics.fmean(gains)
    axis.plot([middle], [mean], marker, color=color, markersize=9, markeredgecolor='black', label=method_title(()))


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
