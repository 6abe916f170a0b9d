"""The demo: a teacher, a student alone and a guided student on real digits, then a table and a figure.

    python tools/demo.py            # what `make demo` runs; what is finished already is not run again
    python tools/demo.py --task detection --seed 1 --work-dir work_dirs/demo_seed1

Each training is the ordinary command that it prints; an interrupted one goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mmlckd.checkpoints import load_weights
from mmlckd.cli import run_tool
from mmlckd.config import bare_config, find_file, read_config, tool_command
from mmlckd.study.measuring import measure
from mmlckd.study.tables import MEASURES


class Demo(NamedTuple):
    """One task: what its data is and is made by, its three configs, what the table calls them, and what it shows."""

    data: str
    prepare: str
    teacher: str
    student: str
    runs: tuple[str, str, str]
    metric: str
    changes: dict[str, tuple[float, ...]]
    shown: tuple[str, ...]
    legend: str
    tested_on: str

    @property
    def configs(self) -> list[str]:
        return [
            f'configs/demo/{name}.py'
            for name in (self.teacher, self.student, f'{self.teacher}_to_{self.student.split("_")[-1]}')
        ]


SCENES = dict(
    data='data/digit_scenes/VOCdevkit',
    prepare='tools/prepare_digit_scenes.py',
    tested_on='400 scenes',
    runs=('teacher, 32 channels', 'student, 16 channels, alone', 'student, 16 channels, guided'),
    changes=dict(noise=(16.0, 32.0)),
    shown=('noise 16', 'noise 32'),
)
NOISE = 'Noise: its standard deviation in pixel values, 0 to 255.'
DEMOS = dict(
    classification=Demo(
        data='data/mnist5k',
        prepare='tools/prepare_digits.py',
        teacher='mnist5k_wrn16-2',
        student='mnist5k_wrn10-1',
        runs=('teacher WRN-16-2', 'student alone', 'student guided'),
        metric='accuracy %',
        changes=dict(noise=(32.0,), fgsm=(8.0,)),
        shown=('noise 32', 'FGSM 8', 'local constant'),
        legend='The teacher learned from 2,000 images, the students from 100. Noise and attack (FGSM): in pixel '
        'values, 0 to 255. Local constant: how far the logits move at most for a small step of the image, in logits '
        'per pixel value, mean over 50 test images.',
        tested_on='MNIST-5k, 2,000 test images',
    ),
    detection=Demo(
        **SCENES,
        teacher='digits_faster_rcnn_r18x32',
        student='digits_faster_rcnn_r18x16',
        metric='mAP50 %',
        legend=f'The teacher learned from 1,000 scenes, the students from 200. {NOISE}',
    ),
    segmentation=Demo(
        **SCENES,
        teacher='digits_deeplabv3plus_r18x32',
        student='digits_deeplabv3plus_r18x16',
        metric='mIoU %',
        legend=f'The teacher learned from 6,000 scenes, the students from 400. {NOISE}',
    ),
)


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--task',
        choices=DEMOS,
        default='classification',
        help='classification (default), or detection or segmentation of digit scenes',
    )
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs'), help='folder for the three runs (default: work_dirs)'
    )
    parser.add_argument('--seed', type=int, default=0, help="seed of the two students (default: 0); the teacher's is 0")
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def work_dir_of(config, args):
    """The teacher serves every seed, so it stays where its config puts it."""
    return Path('work_dirs' if config == DEMOS[args.task].configs[0] else args.work_dir) / Path(config).stem


def refuse_another_seed(path, args):
    """See that a run that is there, whose config lies at ``path``, has the seed that is asked for."""
    there = read_config(str(path)).randomness.seed if path.is_file() else None
    if there not in (None, args.seed) and path.stem != Path(DEMOS[args.task].configs[0]).stem:
        raise ValueError(
            f'--seed is {args.seed}, and {path.parent} holds a training with seed {there}: give each seed a --work-dir '
            'of its own'
        )


def train(config, title, args, console):
    """Train by the ordinary command, its epochs as a progress bar, unless it is finished."""
    folder, epochs = work_dir_of(config, args), read_config(config).train_cfg.max_epochs
    checkpoint = folder / f'epoch_{epochs}.pth'
    options = (
        []
        if config == DEMOS[args.task].configs[0] or args.seed == 0
        else ['--cfg-options', f'randomness.seed={args.seed}']
    )
    arguments = [config, '--work-dir', str(folder), '--resume', *options]
    refuse_another_seed(folder / Path(config).name, args)
    command = tool_command(' '.join(['python tools/train.py', *arguments]))
    console.print(f'[dim]{command}{" (finished)" if checkpoint.is_file() else ""}[/dim]', soft_wrap=True)
    if checkpoint.is_file():
        return checkpoint
    columns = (
        TextColumn('{task.description:38}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('epochs'),
        TimeElapsedColumn(),
    )
    lines = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=epochs)
        process = subprocess.Popen(
            [sys.executable, find_file('tools/train.py'), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in process.stdout:
            lines.append(line)
            epoch = re.search(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\]', line)
            if epoch:
                progress.update(task, completed=int(epoch[1]) - 1 + int(epoch[2]) / int(epoch[3]))
        if process.wait() == 0:
            progress.update(task, completed=epochs)
    if process.returncode:
        console.print(''.join(lines[-30:]), markup=False, highlight=False)
        raise ValueError(f'training {config} failed, its last lines are above and its whole log is in {folder}')
    return checkpoint


def evaluate(config_path, checkpoint, args):
    """Parameters of the network, and its test results, clean and on changed images."""
    config = bare_config(read_config(config_path))
    config.update(work_dir=str(work_dir_of(config_path, args) / 'test'), log_level='ERROR')
    runner = Runner.from_cfg(config)
    load_weights(runner.model, str(checkpoint))
    parameters = sum(weight.numel() for weight in runner.model.parameters())
    return dict(parameters=parameters, **measure(runner, DEMOS[args.task].changes))


def main(args):
    warnings.simplefilter('ignore')  # of the libraries, between the tables
    console, start, demo = Console(), time.time(), DEMOS[args.task]
    subprocess.run([sys.executable, find_file(demo.prepare), '--out', demo.data], check=True)
    titles = dict(zip(demo.configs, demo.runs))
    checkpoints = {config: train(config, title, args, console) for config, title in titles.items()}
    console.print(f'[dim]testing on {demo.tested_on}[/dim]')
    results = {config: evaluate(config, checkpoint, args) for config, checkpoint in checkpoints.items()}

    table = Table(title=demo.tested_on)
    for column in ('', 'parameters', demo.metric, *(MEASURES[name][0] for name in demo.shown)):
        table.add_column(column, justify='right' if column else 'left')
    for config, row in results.items():
        shown = [f'{row[name]:.{MEASURES[name][1]}f}' for name in ('test', *demo.shown)]
        table.add_row(titles[config], f'{row["parameters"]:,}', *shown)
    console.print(table)
    console.print(demo.legend)
    record = dict(
        task=args.task,
        metric=demo.metric,
        shown=demo.shown,
        legend=demo.legend,
        seed=args.seed,
        torch=torch.__version__,
        seconds=time.time() - start,
        results={titles[config]: row for config, row in results.items()},
    )
    guided = demo.configs[-1]
    folder = work_dir_of(guided, args)
    (folder / 'demo.json').write_text(json.dumps(record, indent=2) + '\n')
    for what, path in (
        ('figure of the training', folder / 'lipschitz.png'),
        ('this table as data', folder / 'demo.json'),
        ('guided student, a plain OpenMMLab checkpoint', checkpoints[guided]),
        ('data', demo.data),
    ):
        console.print(f'{what}: [bold]{path}[/bold]', soft_wrap=True)


if __name__ == '__main__':
    run_tool(main, make_parser())
