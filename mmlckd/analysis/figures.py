"""Figures."""

import textwrap
from pathlib import Path
from typing import List, Optional, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

STYLE = {'font.size': 10, 'axes.spines.top': False, 'axes.spines.right': False}
STUDENT, TEACHER = '#0072B2', '#D55E00'  # Okabe and Ito's blue and vermilion, told apart by colour-blind readers


def plot_history(history: List[dict], path: Path, pair_names: Sequence[str] = ()) -> None:
    """Draw the transmitting norms of each pair over training, teacher against student.

    Args:
        history: Readings of :class:`SpectralNormHook`, each with ``iter`` and lists ``student``, ``teacher``, ``log_ratio``.
        path: Where the picture goes; its ending gives the format.
        pair_names: A title for each pair; numbered where not given.
    """
    pairs = len(history[0]['student'])
    steps = [reading['iter'] for reading in history]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 3.4 * pairs, 5.2), layout='constrained')
        axes = figure.subplots(2, pairs, sharex=True, squeeze=False, height_ratios=(3, 2))
        for k in range(pairs):
            norms, ratio = axes[0][k], axes[1][k]
            norms.set_title(textwrap.fill(pair_names[k], 30) if k < len(pair_names) else f'pair {k}')
            norms.plot(steps, [reading['teacher'][k] for reading in history], color=TEACHER, linestyle='--', label='teacher')
            norms.plot(steps, [reading['student'][k] for reading in history], color=STUDENT, label='student')
            norms.set_ylim(bottom=0)
            ratio.axhline(0, color=TEACHER, linestyle='--', linewidth=1)
            ratio.plot(steps, [reading['log_ratio'][k] for reading in history], color=STUDENT)
            ratio.set_xlabel('iteration')
        axes[0][0].set_ylabel('transmitting norm\n(squared feature units)')
        axes[1][0].set_ylabel('log(student / teacher)')
        axes[0][0].legend(frameon=False)
        figure.savefig(path, dpi=150)


def plot_layers(history: List[dict], path: Path, bound: Optional[float] = None) -> None:
    """Draw the operator norm of each layer over training, shallow layers dark and deep ones light.

    Args:
        history: Readings of :class:`SpectralNormHook` with ``iter`` and ``layers``, a dict of norms by name.
        path: Where the picture goes.
        bound: A line to draw across, the bound that the layers were held to.
    """
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
