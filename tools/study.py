"""Compare ways of distilling on data sets, seed by seed, and tell whether differences are more than chance.

    python tools/study.py --preset quick
    python tools/study.py --preset readme              # the README's figure, 1¾ hours on two cores
    python tools/study.py --preset readme --select     # choose the weights anew, on seeds that are not reported
    python tools/study.py --preset quick --data configs/demo/mnist5k_wrn16-2_to_wrn10-1.py --methods kd+ofd kd+ofd+local
    python tools/study.py my/study.py --methods alone kd kd+lipschitz

A preset is a config in configs/study. Every training is an ordinary run of a recipe. A second call skips what is
finished and resumes what was interrupted. At the end there are tables, figures and study_<preset>.json with all
records, in --out; tools/maintenance/page_tables.py makes the pages' tables from that file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from graphlib import TopologicalSorter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from mmengine.utils import get_git_hash
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from mmlckd.checkpoints import AtomicBackend
from mmlckd.cli import check_folder, check_prerequisites, is_there, needed_paths, run_tool
from mmlckd.config import SHIPPED, find_file, read_config, tool_command
from mmlckd.study import Study, run_all
from mmlckd.study.aims import verdicts
from mmlckd.study.cell import method_title
from mmlckd.study.figure import plot_cost, plot_study
from mmlckd.study.plan import restricted
from mmlckd.study.tables import comparison_rows, contrasts, result_rows

# Those that a record names the versions of. OpenMMLab's have one of two names.
PACKAGES = (
    'torch',
    *('onedl-mmengine', 'onedl-mmcv', 'onedl-mmpretrain', 'onedl-mmdetection', 'onedl-mmsegmentation'),
    *('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmsegmentation'),
    'numpy',
)
PRESETS = SHIPPED / 'configs' / 'study'


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument('config', nargs='?', help='a study config')
    which.add_argument(
        '--preset', choices=sorted(path.stem for path in PRESETS.glob('*.py')), help='one of configs/study'
    )
    parser.add_argument(
        '--select', action='store_true', help="choose the methods' weights on the selection seeds, and write them down"
    )
    parser.add_argument(
        '--data', nargs='+', metavar='DATA', help='data sets: titles of the study, or recipes (distillation configs)'
    )
    parser.add_argument('--methods', nargs='+', metavar='METHOD', help='methods: loss names joined by +, or alone')
    parser.add_argument('--seeds', nargs='+', type=int, metavar='SEED', help='seeds of the report')
    parser.add_argument('--jobs', type=int, default=2, help='trainings at a time, which share the cores (default: 2)')
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/study'),
        help='folder of the trainings (default: work_dirs/study)',
    )
    parser.add_argument('--out', type=Path, help='folder of table, figure and records (default: --work-dir)')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def origin():
    """Where a record comes from: commit, versions, machine."""
    status = ['git', 'status', '--porcelain', '--untracked-files=no']
    changed = subprocess.run(status, cwd=SHIPPED, capture_output=True, text=True).stdout
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    machine = (
        platform.machine(),
        f'{os.cpu_count()} cores',
        torch.backends.cpu.get_cpu_capability(),
        f'Python {platform.python_version()}',
    )
    return dict(
        commit=get_git_hash(fallback='unknown', digits=12) + ('+changes' if changed else ''),
        versions=versions,
        machine=', '.join(machine),
    )


def needed_commands(recipe):
    """The commands that make what a recipe needs and lacks, each with those that come before it.

    Only Python files are run. What a command of the shell makes is left to the user: check_prerequisites names it.
    """
    config, commands = read_config(recipe), {}
    for path in needed_paths(config):
        command = config.get('prerequisites', {}).get(path, '')
        if command.startswith('python ') and not is_there(path):
            trained = command.partition(' tools/train.py ')[2]
            first = needed_commands(trained.split()[0]) if trained else {}
            commands |= first | {command: set(first)}
    return commands


def run_command(command, threads, console):
    console.print(f'[dim]{tool_command(command)}[/dim]', soft_wrap=True)
    tool, *rest = command.split()[1:]
    environment = {'OMP_NUM_THREADS': str(threads), **os.environ}
    subprocess.run([sys.executable, find_file(tool), *rest], check=True, stdout=subprocess.DEVNULL, env=environment)


def prepare(recipes, jobs, console):
    """Make the data and the teachers that recipes need, those that do not need each other side by side."""
    order = TopologicalSorter({k: v for recipe in recipes for k, v in needed_commands(recipe).items()})
    order.prepare()
    while order.is_active():
        ready = order.get_ready()
        threads = max(1, (os.cpu_count() or 1) // min(jobs, len(ready)))
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(partial(run_command, threads=threads, console=console), ready))
        order.done(*ready)
    for recipe in recipes:
        check_prerequisites(read_config(recipe))


def run_with_progress(cells, args, console, title):
    """Run the cells under a bar; in a file, a line for each training."""
    if not cells:
        return []
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('trainings'),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, speed_estimate_period=600) as progress:
        task = progress.add_task(title, total=len(cells))

        def done(cell, record):
            progress.advance(task)
            if not console.is_terminal:
                count = f'{int(progress.tasks[task].completed)}/{len(cells)}'
                console.print(f'{title} {count}: {method_title(cell.method)}, {cell.data}, seed {cell.seed}')

        return run_all(cells, args.work_dir, origin(), args.jobs, done)


def select(study, args, console):
    """Choose the weights and write their file."""
    if study.weights_file is None:
        raise ValueError(f'study {study.name!r} names no file for the weights: add weights=... to its config')
    if args.data or args.methods:
        raise ValueError(
            '--select chooses the weights of the whole study and replaces their file: leave --data and --methods out, '
            'or write a study config for your data, with weights=... of its own'
        )
    chosen = study.selection(partial(run_with_progress, args=args, console=console, title='selection'))
    data = {name: study.data[name] for name in study.selection_data}
    record = dict(study=study.name, data=data, seeds=study.selection_seeds)
    record['each' if study.each else 'methods'] = chosen
    AtomicBackend().put_text(json.dumps(record, indent=1) + '\n', study.weights_file)
    console.print(f'weights: [bold]{study.weights_file}[/bold]', soft_wrap=True)


def report(records, design, console):
    """Print the tables and what became of the aims."""
    found = contrasts(records, design['compare'])
    for title, (header, rows) in (*result_rows(records).items(), *comparison_rows(found).items()):
        table = Table(title=title)
        for column in header:
            table.add_column(column, justify='right' if column else 'left')
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for verdict in verdicts(found, design['aims']):
        console.print(verdict)


def main(args):
    if args.jobs < 1:
        raise ValueError(f'--jobs is {args.jobs}: at least 1 is needed')
    out = args.out or args.work_dir
    check_folder('--work-dir', args.work_dir)
    check_folder('--out', out)
    path = args.config or PRESETS / f'{args.preset}.py'
    study = restricted(Study(read_config(str(path)), Path(path).stem), args.data, args.methods, args.seeds)
    console = Console(width=None if sys.stdout.isatty() else 160)  # in a file a table is whole
    prepare(study.data.values(), args.jobs, console)
    if args.select:
        select(study, args, console)
        return
    untuned = study.untuned()
    if untuned:
        console.print(f"the recipes' own weights hold for {', '.join(untuned)}: none were chosen by --select")
    records = run_with_progress(study.cells(), args, console, study.name)
    report(records, study.design, console)
    lines = ',\n'.join(json.dumps(record) for record in records)
    path, design = out / f'study_{study.name}.json', json.dumps(dict(study=study.name, **study.design))
    AtomicBackend().put_text(f'{design[:-1]}, "records": [\n{lines}\n]}}\n', path)
    pictures = plot_study(records, path.with_suffix('.png')), plot_cost(records, out / f'study_{study.name}_cost.png')
    for written in (path, *filter(None, pictures)):
        console.print(f'written: [bold]{written}[/bold]', soft_wrap=True)


if __name__ == '__main__':
    run_tool(main, make_parser())
