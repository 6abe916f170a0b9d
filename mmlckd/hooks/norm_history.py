"""The history of a training's Lipschitz values, as files and pictures."""

from __future__ import annotations

import json
from pathlib import Path

from mmcv import imread

from mmlckd.unwrapped import unwrapped

from .loss_statistics import panel_names


def write_history(runner, history: list[dict], max_norm: float | None) -> None:
    """Write ``lipschitz.json`` and the figures into the work folder, and show the figures to the visualizer.

    Args:
        runner: Of the training that ends.
        history: Readings of :class:`SpectralNormHook`, oldest first, at least one.
        max_norm: The bound that layers were held to, which their figure shows.
    """
    from mmlckd.analysis import plot_history, plot_layers  # only here is matplotlib needed

    folder = Path(runner.work_dir)
    (folder / 'lipschitz.json').write_text(json.dumps(history, indent=1) + '\n')
    if history[0].keys() & {'student', 'local_student'}:
        plot_history(history, folder / 'lipschitz.png', panel_names(unwrapped(runner.model)))
    if 'layers' in history[-1]:
        plot_layers(history, folder / 'lipschitz_layers.png', max_norm)
    for path in sorted(folder.glob('lipschitz*.png')):
        runner.visualizer.add_image(path.stem, imread(path, channel_order='rgb'), step=runner.iter)
        runner.logger.info(f'Lipschitz values over training: {path}')
