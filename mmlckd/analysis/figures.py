"""Figures: norms over training, and what an analysis found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = {'font.size': 10, 'axes.spines.top': False, 'axes.spines.right': False}
STUDENT, TEACHER = '#0072B2', '#D55E00'  # Okabe and Ito's blue and vermilion, told apart by colour-blind readers
COLOURS = {
    'student': STUDENT,
    'network': STUDENT,
    'teacher': TEACHER,
    'student alone': '#009E73',
    'untrained': '#999999',
}
OTHER_COLOURS = ('#E69F00', '#CC79A7', '#56B4E9', '#000000')  # of networks that a user names


def _colour(name: str, networks: dict) -> str:
    if name in COLOURS:
        return COLOURS[name]
    others = [other for other in networks if other not in COLOURS]
    return OTHER_COLOURS[others.index(name) % len(OTHER_COLOURS)]


def plot_report(record: dict, folder: Path) -> list[Path]:
    """Draw an analysis: norms of the pairs, norms by depth, local constants, and accuracy under noise and attack.

    Args:
        record: What tools/analyze_lipschitz.py writes as report.json.
        folder: Where the pictures go.

    Returns:
        Their paths. A figure is left out if a network has no numbers for it.
    """
    import matplotlib  # takes a quarter of a second, and only pictures need it
    from matplotlib.figure import Figure

    networks = record['networks']
    drawings = dict(pairs=_draw_pairs, layers=_draw_layers, local=_draw_local, robustness=_draw_robustness)
    paths = []
    for name, draw in drawings.items():
        if all(network.get(name) for network in networks.values()):
            with matplotlib.rc_context(STYLE):
                figure = Figure(figsize=(7.5, 4), layout='constrained')
                draw(figure, networks, record)
                paths.append(folder / f'{name}.png')
                figure.savefig(paths[-1], dpi=150)
    return paths


def _draw_pairs(figure: Figure, networks: dict, record: dict) -> None:
    """A box for every network and pair, over images: the middle half, with whiskers from 5 % to 95 %."""
    axes = figure.subplots()
    width = 0.8 / len(networks)
    for i, (name, network) in enumerate(networks.items()):
        offset = (i - (len(networks) - 1) / 2) * width
        boxes = axes.boxplot(
            network['pairs'],
            positions=[k + offset for k in range(len(network['pairs']))],
            widths=0.8 * width,
            patch_artist=True,
            sym='',
            whis=(5, 95),
            medianprops=dict(color='black'),
            label=name,
        )
        for box in boxes['boxes']:
            box.set(facecolor=_colour(name, networks), alpha=0.7)
    taps = [tap.removeprefix('backbone.') for tap in next(iter(networks.values()))['taps']]
    pairs = list(zip(taps, taps[1:]))
    axes.set_xticks(range(len(pairs)), [f'pair {k}' for k in range(len(pairs))])
    legend = [f'pair {k}: {before} to {after}' for k, (before, after) in enumerate(pairs)]
    axes.set_xlabel('\n'.join(legend), fontsize=8, loc='left')
    axes.set_yscale('log')
    kind = 'centred' if record['center'] else 'raw'
    axes.set_ylabel(f'transmitting norm of {kind} maps,\nbefore connectors (squared feature units)')
    axes.legend(frameon=False)


def _draw_layers(figure: Figure, networks: dict, record: dict) -> None:
    """Operator norm by depth."""
    axes = figure.subplots()
    for name, network in networks.items():
        norms = [row['operator_norm'] for row in network['layers'].values()]
        depths = np.linspace(0, 1, len(norms))
        label = f'{name}, {len(norms)} layers'
        axes.plot(depths, norms, marker='o', markersize=3, color=_colour(name, networks), label=label)
    axes.set_ylim(bottom=0)
    axes.set_xlabel('depth (0: first convolution, 1: last layer)')
    axes.set_ylabel('operator norm (output per input unit)')
    axes.legend(frameon=False)


def _draw_local(figure: Figure, networks: dict, record: dict) -> None:
    """Histogram of the local constants, with their means."""
    axes = figure.subplots()
    values = [network['local'] for network in networks.values()]
    low, high = min(map(min, values)), max(map(max, values))
    if low > 0:
        bins = np.geomspace(low * 0.95, high * 1.05, 30).tolist()
        axes.set_xscale('log')
    else:  # a constant network has zeros
        bins = np.linspace(0, high or 1, 30).tolist()
    for name, network in networks.items():
        axes.hist(network['local'], bins=bins, color=_colour(name, networks), alpha=0.2)
        axes.hist(
            network['local'], bins=bins, color=_colour(name, networks), histtype='step', linewidth=1.8, label=name
        )
        axes.axvline(np.mean(network['local']), color=_colour(name, networks), linestyle='--', linewidth=1.5)
    axes.set_xlabel('local Lipschitz constant (output per pixel value, 0 to 255); dashed: mean')
    axes.set_ylabel('images')
    axes.legend(frameon=False)


def _draw_robustness(figure: Figure, networks: dict, record: dict) -> None:
    """Accuracy against the strength of noise and attacks."""
    attack = 'radius (pixel values)'
    panels = (
        ('noise', 'Gaussian noise', record['noise'], 'standard deviation\n(pixel values)'),
        ('fgsm', 'FGSM', record['epsilon'], attack),
        ('pgd', 'PGD', record['epsilon'], attack),
    )
    for axes, (kind, title, strengths, label) in zip(figure.subplots(1, 3, sharey=True), panels):
        for name, network in networks.items():
            axes.plot(
                strengths,
                network['robustness'][kind],
                marker='o',
                markersize=3,
                color=_colour(name, networks),
                label=name,
            )
        axes.set_title(title)
        axes.set_xlabel(label)
        axes.set_ylim(0, 100)
    figure.axes[0].set_ylabel('accuracy (%)')
    figure.axes[0].legend(frameon=False)
