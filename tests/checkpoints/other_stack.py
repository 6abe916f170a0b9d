"""A short training whose checkpoints are kept, so that each stack reads what the other wrote.

    python tests/checkpoints/other_stack.py

writes ``tests/checkpoints/written/torch-<version>_numpy-<version>.pth`` with the packages that are installed. Run it in
each environment when something new goes into checkpoints.
"""

from __future__ import annotations

import copy
import random
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import EMAHook

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as pytest does, when this is run as a script
from short_run import PLAIN, SAFE, training  # noqa: E402

from mmlckd.resumability import GradientStateHook, RandomStateHook, RunCheckHook  # noqa: E402

WRITTEN = Path(__file__).parent / 'written'
KEPT, END = 3, 6  # iterations: of the checkpoint that is kept, and of the whole training
TRAININGS = dict(
    # Everything that this package writes. Two gradients a step, so that there are accumulated ones at iteration 3. The
    # bias before the batch norm has no gradient but rounding errors; eps keeps Adam from making steps of them.
    guarded=dict(
        hooks=[RunCheckHook, RandomStateHook, GradientStateHook, EMAHook],
        checkpoint=dict(SAFE, save_best='accuracy'),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01, eps=1e-2), accumulative_counts=2),
    ),
    # What MMEngine writes by itself. SGD without momentum keeps a None in torch 2.1, and nothing in 2.10.
    stock=dict(hooks=[], checkpoint=PLAIN, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1))),
)


def train(folder, name, resume=False):
    """Runner of one of :data:`TRAININGS`, which has ended; ``resume`` names the checkpoint that it began from."""
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    options = copy.deepcopy(TRAININGS[name])
    run = training(
        folder,
        [hook() for hook in options.pop('hooks')],
        dict(options.pop('checkpoint'), by_epoch=False, interval=KEPT),
        resume=resume,
        type='mmlckd.ResumableIterLoop',
        max_iters=END,
        val_interval=2,
        validate=True,
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
            dict(type='CosineAnnealingLR', T_max=4, by_epoch=False, begin=2),
        ],
        **options,
    )
    run.train()
    return run


def main():
    WRITTEN.mkdir(exist_ok=True)
    stack = f'torch-{torch.__version__.partition("+")[0]}_numpy-{np.__version__}'
    for name in TRAININGS:
        with tempfile.TemporaryDirectory() as folder:
            train(Path(folder), name)
            shutil.copy(Path(folder) / f'iter_{KEPT}.pth', WRITTEN / f'{stack}_{name}.pth')


if __name__ == '__main__':
    main()
