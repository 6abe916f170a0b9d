"""Figures of a training: Lipschitz values and layers' norms over its iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .figures import STUDENT, STYLE, TEACHER


class Panel(NamedTuple):
    """What one column of the history's figure shows: a title, what the values are, and the values over training."""

    title: str
    unit: str
    student: np.ndarray
    teacher: np.ndarray
    log_ratio: np.ndarray


def plot_history(history: list[dict], path: Path, names: Mapping[str, Sequence[str]] | None = None) -> None:
    """Draw Lipschitz values over training, teacher against student, a column for each pair of taps or each tap.

    Args:
        history: Readings of :class:`.SpectralNormHook`, each with ``iter``, and with the lists ``student``,
            ``teacher`` and ``log_ratio`` (transmitting norms by pair), or ``local_student`` and ``local_teacher``
            (local quotients by tap), or all of these.
        path: Where the picture goes; its ending gives the format.
        names: Titles of the pairs under 'student', and of the taps under 'local_student'. Columns without are numbered.

    A run that is resumed with other losses or taps has readings of other pairs. Columns are those of the last reading,
    and readings with another number of them are left out.
    """
    import matplotlib  # takes a quarter of a second, and only pictures need it
    from matplotlib.figure import Figure

    panels = _history_panels(history, names or {})
    steps = [reading['iter'] for reading in history]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 3.4 * len(panels), 5.2), layout='constrained')
        axes = figure.subplots(2, len(panels), sharex=True, squeeze=False, height_ratios=(3, 2))
        shown = None
        for panel, values, ratio in zip(panels, *axes):
            values.set_title(panel.title, fontsize=8)
            values.plot(steps, panel.teacher, color=TEACHER, linestyle='--', label='teacher')
            values.plot(steps, panel.student, color=STUDENT, label='student')
            values.set_ylim(bottom=0)
            ratio.axhline(0, color=TEACHER, linestyle='--', linewidth=1)
            ratio.plot(steps, panel.log_ratio, color=STUDENT)
            ratio.set_xlabel('iteration')
            if panel.unit != shown:
                values.set_ylabel(panel.unit)
                shown = panel.unit
        axes[1][0].set_ylabel('log(student / teacher)')
        axes[0][0].legend(frameon=False)
        figure.savefig(path, dpi=150)


def _history_panels(history: list[dict], names: Mapping[str, Sequence[str]]) -> list[Panel]:
    panels = []
    for side, unit in (
        ('student', 'transmitting norm\n(squared feature units)'),
        ('local_student', '|change of output| / |change of input|\n(output units per pixel value)'),
    ):
        titles = list(names.get(side, ()))
        for k in range(columns_of(history, side)):
            title = titles[k].replace(' to ', '\nto ') if k < len(titles) else f'pair {k}'
            student, teacher = (_column(history, name, k) for name in (side, side.replace('student', 'teacher')))
            if side == 'student':
                log_ratio = _column(history, 'log_ratio', k)
            else:
                with np.errstate(divide='ignore', invalid='ignore'):  # before the first image moved both are 0
                    log_ratio = np.log(student / teacher)
            panels.append(Panel(title, unit, student, teacher, log_ratio))
    return panels


def columns_of(history: list[dict], side: str) -> int:
    """How many values a side ('student', 'local_student') has in the last reading."""
    return len(history[-1].get(side, ()))


def _column(history: list[dict], name: str, k: int) -> np.ndarray:
    """Value number ``k`` over the readings; NaN in those with another number of values."""
    count = columns_of(history, name)
    rows = [reading.get(name, ()) for reading in history]
    return np.array([row[k] if len(row) == count else np.nan for row in rows])


def plot_layers(history: list[dict], path: Path, bound: float | None = None) -> None:
    """Draw the operator norm of each layer over training, shallow layers dark and deep ones light.

    Args:
        history: Readings of :class:`.SpectralNormHook` with ``iter`` and ``layers``, a dict of norms by name.
        path: Where the picture goes.
        bound: The bound that the layers were held to, drawn as a line across.
    """
    import matplotlib
    from matplotlib.figure import Figure

    readings = [reading for reading in history if 'layers' in reading]
    names = list(readings[-1]['layers'])
    colours = matplotlib.colormaps['cividis'](np.linspace(0, 0.92, len(names)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 1.6 + 0.17 * max(len(names), 16)), layout='constrained')
        axes = figure.subplots()
        for name, colour in zip(names, colours):
            norms = [reading['layers'].get(name, np.nan) for reading in readings]
            axes.plot([reading['iter'] for reading in readings], norms, color=colour, label=name)
        if bound is not None:
            axes.axhline(bound, color=TEACHER, linestyle='--', label='bound')
        axes.set_ylim(bottom=0)
        axes.set_xlabel('iteration')
        axes.set_ylabel('operator norm (output per input unit)')
        figure.legend(loc='outside right upper', frameon=False, fontsize=8)
        figure.savefig(path, dpi=150)
