"""A study's results as a picture: a dot for every seed."""

import statistics
from pathlib import Path
from typing import List

from matplotlib.figure import Figure

from .cell import method_title
from .tables import by_method, is_guided, values


def plot_study(records: List[dict], path: Path) -> None:
    """Draw every seed's test result, method by method, a panel for each data set; bars are the means."""
    groups = by_method(records)
    height = 0.8 + 0.32 * max(map(len, groups.values()))
    figure = Figure(figsize=(3.6 * len(groups) + 1.2, height + 0.6), layout='constrained')
    for axis, (data, methods) in zip(figure.subplots(1, len(groups), squeeze=False, sharey='row')[0], groups.items()):
        for y, (method, group) in enumerate(methods.items()):
            numbers, color = values(group, 'test'), 'tab:orange' if is_guided(method) else 'tab:blue'
            axis.plot(numbers, [y] * len(numbers), 'o', color=color, alpha=0.45, markersize=5, markeredgewidth=0)
            axis.plot([statistics.fmean(numbers)] * 2, [y - 0.32, y + 0.32], color=color, linewidth=2)
        axis.set_yticks(range(len(methods)), [method_title(method) for method in methods])
        axis.set_title(data, fontsize=10)
        axis.set_xlabel('test result, %')
        axis.grid(axis='x', alpha=0.3)
    figure.axes[0].invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
