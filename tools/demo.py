"""The demo: a teacher, a student alone and a Lipschitz-guided student on real digits, then a table and a figure.

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
from mmengine.runner import Runner, set_random_seed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mmlckd.analysis import profile_distance, transmitting_profile
from mmlckd.checkpoints import load_weights
from mmlckd.cli import run_tool
from mmlckd.config import bare_config, bare_model, find_file, read_config, tool_command
from mmlckd.registry import MODELS
from mmlckd.taps import default_input_shape


class Demo(NamedTuple):
    """One task: what its data is and is made by, its three configs, and how the result is called and read."""

    data: str
    prepare: str
    teacher: str
    student: str
    runs: tuple[str, str, str]
    metric: str
    key: str
    factor: float
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
    runs=('teacher, 32 channels', 'student, 16 channels, alone', 'student, 16 channels, Lipschitz-guided'),
)
DEMOS = dict(
    classification=Demo(
        data='data/mnist5k',
        prepare='tools/prepare_digits.py',
        teacher='mnist5k_wrn16-2',
        student='mnist5k_wrn10-1',
        runs=(
            'teacher WRN-16-2, 2,000 images',
            'student WRN-10-1 alone, 100 images',
            'student Lipschitz-guided, 100 images',
        ),
        metric='test accuracy %',
        key='accuracy/top1',
        factor=1.0,
        tested_on='MNIST-5k, 2,000 test images',
    ),
    detection=Demo(
        **SCENES,
        teacher='digits_faster_rcnn_r18x32',
        student='digits_faster_rcnn_r18x16',
        metric='mAP50 %',
        key='pascal_voc/mAP',
        factor=100.0,
    ),
    segmentation=Demo(
        **SCENES,
        teacher='digits_deeplabv3plus_r18x32',
        student='digits_deeplabv3plus_r18x16',
        metric='mIoU %',
        key='mIoU',
        factor=1.0,
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
    """Test result, parameters, and the runner that holds the model and the test batches."""
    demo = DEMOS[args.task]
    config = bare_config(read_config(config_path))
    config.update(work_dir=str(work_dir_of(config_path, args) / 'test'), log_level='ERROR')
    runner = Runner.from_cfg(config)
    load_weights(runner.model, str(checkpoint))
    value = float(demo.factor * runner.test()[demo.key])
    return dict(
        value=value, parameters=sum(parameter.numel() for parameter in runner.model.parameters()), runner=runner
    )


def profile(model, runner, taps, images=400):
    loader = runner.test_dataloader
    batches = (batch for batch, _ in zip(loader, range(images // loader.batch_size)))
    return transmitting_profile(model, batches, taps, default_input_shape(model))


def untrained(config_path, seed):
    """The student as its training started."""
    set_random_seed(seed)
    model = MODELS.build(bare_model(read_config(config_path)))
    model.init_weights()
    return model


def main(args):
    warnings.simplefilter('ignore')  # of the libraries, between the tables
    console, start, demo = Console(), time.time(), DEMOS[args.task]
    subprocess.run([sys.executable, find_file(demo.prepare), '--out', demo.data], check=True)
    titles = dict(zip(demo.configs, demo.runs))
    checkpoints = {config: train(config, title, args, console) for config, title in titles.items()}
    console.print(f'[dim]testing on {demo.tested_on}[/dim]')
    results = {config: evaluate(config, checkpoint, args) for config, checkpoint in checkpoints.items()}

    teacher_config, _, guided = demo.configs
    taps = read_config(guided).model.taps
    runner = results[teacher_config]['runner']
    teacher = profile(runner.model, runner, taps)
    for config in demo.configs[1:]:
        student = results[config]['runner'].model
        results[config].update(
            before=profile_distance(profile(untrained(config, args.seed), runner, taps), teacher),
            after=profile_distance(profile(student, runner, taps), teacher),
        )
    folder = work_dir_of(guided, args)
    history = json.loads((folder / 'lipschitz.json').read_text())
    through_connectors = [
        sum(map(abs, reading['log_ratio'])) / len(reading['log_ratio']) for reading in (history[0], history[-1])
    ]

    table = Table(title=demo.tested_on)
    for column in ('', 'parameters', demo.metric, 'Lipschitz distance'):
        table.add_column(column, justify='right' if column else 'left')
    for config, row in results.items():
        distance = f'{row["before"]:.2f} to {row["after"]:.2f}' if 'before' in row else '-'
        table.add_row(titles[config], f'{row["parameters"]:,}', f'{row["value"]:.2f}', distance)
    console.print(table)
    console.print(
        'Lipschitz distance: mean |log(student norm / teacher norm)| over pairs of taps and 400 test images, '
        "on the maps themselves. Through the connectors, where the loss compares them, the guided student's went from "
        f'{through_connectors[0]:.2f} to {through_connectors[1]:.2f} (first and last training batch).'
    )
    record = dict(
        task=args.task,
        metric=demo.metric,
        seed=args.seed,
        torch=torch.__version__,
        seconds=time.time() - start,
        distance_through_connectors=through_connectors,
        results={
            titles[config]: {key: value for key, value in row.items() if key != 'runner'}
            for config, row in results.items()
        },
    )
    (folder / 'demo.json').write_text(json.dumps(record, indent=2) + '\n')
    for what, path in (
        ('figure of the norms over training', folder / 'lipschitz.png'),
        ('this table as data', folder / 'demo.json'),
        ('guided student, a plain OpenMMLab checkpoint', checkpoints[guided]),
        ('data', demo.data),
    ):
        console.print(f'{what}: [bold]{path}[/bold]', soft_wrap=True)


if __name__ == '__main__':
    run_tool(main, make_parser())
