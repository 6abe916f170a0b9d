"""A training in processes of its own that tells what it is at, so that it can be killed at a chosen moment.

The training is the demo's guided student with dropout, an average of its weights, and no more than one checkpoint kept.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

# MMEngine's import asks whether there is a GPU. Asked of CUDA, forks could not use it.
os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')

import mmpretrain.models  # noqa: F401  once, for all the trainings that are forked
import torch  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402

from mmlckd.registry import HOOKS  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import train  # noqa: E402  the tool that is killed

CONFIG = 'configs/demo/mnist5k_wrn16-2_to_wrn10-1.py'
fork = multiprocessing.get_context('fork')


@HOOKS.register_module()
class PhaseReport(Hook):
    """Tell the parent process, through a pipe, what the training is at."""

    priority = 'LOWEST'

    def __init__(self, pipe: int):
        self.pipe = pipe

    def tell(self, phase: str, runner) -> None:
        os.write(self.pipe, f'{phase} {runner.iter} {time.monotonic()}\n'.encode())

    def before_train(self, runner):
        self.tell('start', runner)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.tell('iteration', runner)

    def before_save_checkpoint(self, runner, checkpoint):
        self.tell('writing', runner)

    def after_train_epoch(self, runner):
        self.tell('written', runner)

    def before_val_epoch(self, runner):
        self.tell('evaluation', runner)

    def after_val_epoch(self, runner, metrics=None):
        self.tell('evaluated', runner)


class Event(NamedTuple):
    """A phase of the training that begins."""

    phase: str
    iter: int
    time: float


class Training:
    """A training in processes of its own, forked from this one, which has everything imported."""

    def __init__(self, args, folder: Path, resume: bool = False):
        self.events: list[Event] = []
        reading, writing = os.pipe()
        self.processes = [
            fork.Process(target=_train, args=(args, folder, rank, reading, writing, resume))
            for rank in range(args.ranks)
        ]
        for process in self.processes:
            process.start()
        os.close(writing)
        self.lines = os.fdopen(reading)

    def until(self, phase: str | None = None, iteration: int | None = None) -> None:
        """Listen until that phase begins, or to the end."""
        for line in self.lines:
            name, number, seconds = line.split()
            self.events.append(Event(name, int(number), float(seconds)))
            if (name, int(number)) == (phase, iteration):
                return

    def end(self, number: int | None = None) -> int:
        """Exit code of the first process, after a signal to all of them and their workers if one is given."""
        for process in self.processes if number else ():
            os.killpg(process.pid, number)
        self.until()
        for process in self.processes:
            process.join()
        return self.processes[0].exitcode


def _train(args, folder: Path, rank: int, reading: int, writing: int, resume: bool) -> None:
    os.setsid()  # the signals to come are for this process and its workers
    os.close(reading)
    log = os.open(folder.with_suffix('.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    torch.set_num_threads(1)
    launcher = 'none'
    if args.ranks > 1:
        launcher = 'pytorch'
        ranks = dict(RANK=str(rank), WORLD_SIZE=str(args.ranks), LOCAL_RANK=str(rank))
        os.environ.update(ranks, MASTER_ADDR='127.0.0.1', MASTER_PORT=args.port)
    report = []
    if rank == 0:
        report = ['default_hooks.report.type=mmlckd.PhaseReport', f'default_hooks.report.pipe={writing}']
    command = [CONFIG, '--work-dir', str(folder), '--launcher', launcher, '--cfg-options', *_options(args), *report]
    train.main(train.make_parser().parse_args([*command, *(['--resume'] if resume else [])]))


def _options(args) -> list[str]:
    """Config overrides of the training."""
    return [
        *(f'{name}_dataloader.dataset.data_root={args.data}' for name in ('train', 'val', 'test')),
        f'train_dataloader.num_workers={args.workers}',
        'train_dataloader.persistent_workers=False',
        'model.teacher.checkpoint=None',
        'model.student.backbone.dropout=0.2',
        'default_hooks.ema.type=EMAHook',
        f'train_cfg.max_epochs={args.epochs}',
        'train_cfg.val_interval=1',
        'default_hooks.checkpoint.interval=1',
        'default_hooks.checkpoint.max_keep_ckpts=1',
        'default_hooks.checkpoint.save_best=auto',
        f'randomness.deterministic={torch.cuda.is_available()}',
        *args.options,
    ]
