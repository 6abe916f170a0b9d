"""Train for a long time and watch what could grow: memory, hooks, log buffers, files, objects.

The training is the demo's guided student, thousands of iterations long, with evaluations, checkpoints and readings of
SpectralNormHook. A straight line through the second half of the readings gives the growth of the resident memory, and
the scatter about that line.

    python tools/benchmarks/soak.py
    python tools/benchmarks/soak.py --iterations 400
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import threading
from pathlib import Path

import mmpretrain.models  # noqa: F401
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mmlckd.checkpoints import AtomicBackend
from mmlckd.cli import check_prerequisites, run_tool
from mmlckd.config import read_config
from mmlckd.resumability import make_resumable

CONFIG = 'configs/demo/mnist5k_wrn16-2_to_wrn10-1.py'
PAGE = os.sysconf('SC_PAGE_SIZE') / 2**20
# What is counted, and must not grow at all.
COUNTS = dict(
    forward_hooks='hooks on modules',
    runner_hooks='hooks of the runner',
    scalars='kinds of logged numbers',
    tensors='tensors alive',
    files='open files',
    threads='threads',
)
PAGE = 4096 / 2**20  # MiB; the line through readings that are all equal rises by a rounding error


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--iterations', type=int, default=3000, help='length of the training (default: 3000)')
    parser.add_argument('--every', type=int, default=10, help='iterations between two readings (default: 10)')
    parser.add_argument('--data', default='data/mnist5k', help='folder of MNIST-5k (default: data/mnist5k)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/soak'), help='folder of the training')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/soak.json'), help='where the JSON goes')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


class Watch(Hook):
    """Read memory and counts every so many iterations."""

    priority = 'LOWEST'

    def __init__(self, every, progress):
        self.every, self.progress = every, progress
        self.readings = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.progress(runner.iter + 1)
        if self.every_n_train_iters(runner, self.every):
            gc.collect()
            modules = [*runner.model.modules(), *runner.model.distiller.teacher.model.modules()]
            self.readings.append(
                dict(
                    iter=runner.iter + 1,
                    rss_mib=int(Path('/proc/self/statm').read_text().split()[1]) * PAGE,
                    forward_hooks=sum(
                        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules
                    ),
                    runner_hooks=len(runner.hooks),
                    scalars=len(runner.message_hub.log_scalars),
                    tensors=sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects()),
                    files=len(os.listdir('/proc/self/fd')),
                    threads=threading.active_count(),
                    log_bytes=sum(
                        path.stat().st_size
                        for path in Path(runner.log_dir).rglob('*')
                        if path.suffix in ('.log', '.json')
                    ),
                )
            )


def train(args, progress):
    config = read_config(CONFIG)
    for name in ('train', 'val', 'test'):
        config[f'{name}_dataloader'].dataset.data_root = args.data
    config.model.teacher.checkpoint = None
    config.work_dir, config.log_level = str(args.work_dir), 'INFO'
    config.train_cfg.update(max_epochs=-(-args.iterations // 4), val_interval=25)  # four iterations an epoch
    config.default_hooks.checkpoint.update(interval=25, max_keep_ckpts=2)
    make_resumable(config)
    check_prerequisites(config)
    runner = Runner.from_cfg(config)
    for handler in runner.logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.ERROR)  # the bar tells enough; the log file has it all
    watch = Watch(args.every, progress)
    runner.register_hook(watch)
    runner.train()
    return watch.readings


def drift(readings):
    """MiB of growth along a straight line through the second half of the readings, and their scatter about it."""
    half = readings[len(readings) // 2 :]
    iters, memory = (np.array([reading[key] for reading in half], dtype=float) for key in ('iter', 'rss_mib'))
    line = np.polyval(np.polyfit(iters, memory, 1), iters)
    return line[-1] - line[0], np.std(memory - line)


def main(args):
    console = Console()
    if args.iterations < 40 * args.every:
        raise ValueError(
            f'--iterations is {args.iterations}: 40 readings, one every {args.every}, take at least {40 * args.every}'
        )
    torch.set_num_threads(1)
    with Progress(console=console) as bar:
        task = bar.add_task('training', total=args.iterations)
        readings = train(args, lambda done: bar.update(task, completed=done))
    growth, scatter = drift(readings)
    first, middle, last = readings[len(readings) // 10], readings[len(readings) // 2], readings[-1]
    table = Table(title=f'{last["iter"]} iterations')
    for column in ('', f'at {first["iter"]}', f'at {middle["iter"]}', f'at {last["iter"]}'):
        table.add_column(column, justify='right' if column else 'left')
    for key, title in dict(rss_mib='resident memory, MiB', **COUNTS, log_bytes='bytes of logs').items():
        table.add_row(
            title,
            *(f'{reading[key]:,.1f}' if key == 'rss_mib' else f'{reading[key]:,}' for reading in (first, middle, last)),
        )
    console.print(table)
    console.print(f'memory over the second half: {growth:+.2f} MiB, with readings that scatter by {scatter:.2f} MiB')
    record = dict(
        torch=torch.__version__,
        machine=platform.machine(),
        iterations=last['iter'],
        growth_mib=growth,
        scatter_mib=scatter,
        rss_mib=[round(reading['rss_mib'], 1) for reading in readings],
        readings=dict(first=first, middle=middle, last=last),
    )
    AtomicBackend().put_text(json.dumps(record, indent=1) + '\n', args.out)
    console.print(f'this table as data: [bold]{args.out}[/bold]')
    grown = [title for key, title in COUNTS.items() if last[key] > middle[key]]
    if grown or growth > max(scatter, PAGE):
        raise ValueError(f'what grew over the second half: {", ".join(grown) or "memory"}')


if __name__ == '__main__':
    run_tool(main, make_parser())
