"""A study's results as pictures: a dot for every seed, the way there, and what it cost."""

from __future__ import annotations

import statistics
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from .cell import method_title
from .tables import by_method, is_guided, strongest, values, with_cost

MARKERS = 'hosD^v<>P*X'
ERRORS = {'test': 'test error', 'FGSM 8': 'error under FGSM 8'}


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
    """Draw the error of each method against its cost: a dot for every seed, and their mean.

    A column for each data set, and a row each for the test images and for these under FGSM. Errors are on logarithmic
    axes, since the best methods lie close together. Methods with the transmitting term are left out. Nothing is drawn,
    and None returned, where a data set has no student alone.
    """
    records = with_cost(records)
    rows = {name: title for name, title in ERRORS.items() if name in records[0]}
    if 'cost' not in records[0]:
        return None
    groups = by_method(records)
    figure = Figure(figsize=(2.9 * len(groups) + 0.4, 2.6 * len(rows) + 1.1), layout='constrained')
    shown = list(dict.fromkeys(name for methods in groups.values() for name in methods if 'lipschitz' not in name))
    unguided = [method for method in shown if not is_guided(method)]
    colors = {method: f'C{(7, 0, 2, 4, 5, 3, 8, 9)[i % 8]}' for i, method in enumerate(unguided)}
    axes = figure.subplots(len(rows), len(groups), squeeze=False, sharex='col')
    for line, (measure, title) in zip(axes, rows.items()):
        for axis, methods in zip(line, groups.values()):
            for i, method in enumerate(shown):
                if method in methods:
                    look = colors.get(method, 'tab:orange'), MARKERS[i % len(MARKERS)]
                    _draw_errors(axis, method_title(method), methods[method], measure, look)
            axis.set_yscale('log')
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
            axis.yaxis.set_major_formatter('{x:g}')
            axis.yaxis.set_minor_locator(NullLocator())
            axis.grid(alpha=0.3)
        line[0].set_ylabel(f'{title}, %')
    for axis, data in zip(axes[0], groups):
        axis.set_title(data, fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel('cost, trainings of the student alone')
    handles = {label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels())}
    inches = 0.5 + 0.06 * max(map(len, handles))  # of the longest entry
    columns = min(3, max(1, int(figure.get_figwidth() / inches)))
    figure.legend(
        handles.values(), handles.keys(), loc='outside lower center', ncols=columns, frameon=False, fontsize=8
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def _draw_errors(axis: Axes, title: str, group: list[dict], measure: str, look: tuple[str, str]) -> None:
    """A method's seeds, and their mean, at its median cost; look: colour and marker."""
    color, marker = look
    errors = [100 - record[measure] for record in group]
    cost = statistics.median(record['cost'] for record in group)
    axis.plot([cost] * len(errors), errors, marker, color=color, alpha=0.35, markersize=4, markeredgewidth=0)
    axis.plot([cost], [statistics.fmean(errors)], marker, color=color, markersize=9, markeredgecolor='k', label=title)


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
