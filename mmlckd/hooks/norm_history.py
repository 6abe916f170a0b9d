"""The history of a training's Lipschitz values, as files and pictures."""

from __future__ import annotations

import json
from pathlib import Path

from mmcv import imread

from mmlckd.analysis import columns_of, plot_history, plot_layers
from mmlckd.unwrapped import unwrapped

from .loss_statistics import panel_names

SIDES = ('student', 'local_student')


def write_history(runner, history: list[dict], max_norm: float | None) -> None:
    """Write ``lipschitz.json`` and the figures into the work folder, and show the figures to the visualizer.

    Args:
        runner: Of the training that ends.
        history: Readings of :class:`SpectralNormHook`, oldest first, at least one.
        max_norm: The bound that layers were held to, which their figure shows.
    """
    folder = Path(runner.work_dir)
    (folder / 'lipschitz.json').write_text(json.dumps(history, indent=1) + '\n')
    if any(columns_of(history, side) for side in SIDES):
        others = [reading['iter'] for reading in history if not _is_of_the_present(reading, history)]
        if others:
            runner.logger.warning(
                f'the readings at iterations {others[0]} to {others[-1]} are of other losses or taps than the last '
                'one, so lipschitz.png leaves them out: lipschitz.json has them'
            )
        plot_history(history, folder / 'lipschitz.png', panel_names(unwrapped(runner.model)))
    if any('layers' in reading for reading in history):
        plot_layers(history, folder / 'lipschitz_layers.png', max_norm)
    for path in sorted(folder.glob('lipschitz*.png')):
        runner.visualizer.add_image(path.stem, imread(path, channel_order='rgb'), step=runner.iter)
        runner.logger.info(f'Lipschitz values over training: {path}')


def _is_of_the_present(reading: dict, history: list[dict]) -> bool:
    """Whether a reading has as many values of each kind as the last one, or none."""
    return all(len(reading.get(side, ())) in (0, columns_of(history, side)) for side in SIDES)
