"""Everything that this package can say about itself on a GPU, in one command: tests, speed, a training that is killed.

    python tools/benchmarks/gpu_check.py
    python tools/benchmarks/gpu_check.py --parts tests loss      # some of it
    python tools/benchmarks/gpu_check.py --device cpu --quick    # what of it runs without a GPU, shortened

It takes the tests that are marked `gpu` (mixed precision, channels-last, streams, torch.compile, no waiting for the
GPU, SyncBN and NCCL), the benchmarks of the loss and of training steps, and trainings that are killed and resumed. None
of it needs mmcv's operators. At the end gpu_check.json and gpu_check.md, a page for the docs, are in --out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import torch
from rich.console import Console

from mmlckd.checkpoints import AtomicBackend
from mmlckd.cli import check_folder, run_tool

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = Path(__file__).resolve().parent
PARTS = ('tests', 'loss', 'steps', 'kills')
FILES = (ROOT / 'tests' / 'gpu', ROOT / 'tests' / 'tools' / 'test_distributed.py')  # those with tests marked `gpu`
WORKLOADS = ('cifar_a', 'mobilenet', 'deeplabv3plus')


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS, help='which of it (default: all)')
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda', help='where it runs (default: cuda)')
    parser.add_argument('--quick', action='store_true', help='one workload, two rounds, two kills: to try the command')
    parser.add_argument('--data', default='data/mnist5k', help='folder of MNIST-5k (default: data/mnist5k)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/gpu_check'), help='folder of the report')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def check(args):
    """What can be told wrong before anything runs."""
    check_folder('--out', args.out)
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('torch sees no GPU here: run this where there is one, or try the command with --device cpu')
    if 'tests' in args.parts and not (ROOT / 'tests').is_dir():
        raise FileNotFoundError(
            'the tests are not part of the installed package: run this in a clone of the repository'
        )


def machine(device):
    """What everything was run on."""
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if device == 'cuda' else []
    return dict(
        device=device,
        gpus=names,
        torch=torch.__version__,
        cuda=torch.version.cuda if names else None,
        python=platform.python_version(),
        machine=platform.machine(),
    )


def call(command, args, console):
    """Run a command in this process's environment; without GPUs where the CPU is asked for."""
    console.print(f'[dim]{" ".join(map(str, command))}[/dim]', soft_wrap=True)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')])))
    if args.device == 'cpu':
        environment['CUDA_VISIBLE_DEVICES'] = ''
    return subprocess.run([sys.executable, *map(str, command)], env=environment).returncode


def tests(args, folder, console):
    """The tests that are marked `gpu`: name, outcome and why."""
    report = folder / 'tests.xml'
    code = call(
        ['-m', 'pytest', *FILES, '-c', ROOT / 'pyproject.toml', '-m', 'gpu', '-q', f'--junitxml={report}'],
        args,
        console,
    )
    if not report.is_file():
        raise RuntimeError(f'pytest ended with exit code {code} and wrote no report: its output is above')
    rows = []
    for case in ElementTree.parse(report).iter('testcase'):
        problem = next((child for child in case if child.tag in ('failure', 'error', 'skipped')), None)
        outcome = 'passed' if problem is None else problem.tag.replace('failure', 'failed')
        why = '' if problem is None else problem.get('message', '').splitlines()[0][:200]
        rows.append(dict(name=case.get('name'), outcome=outcome, why=why, seconds=float(case.get('time'))))
    if not rows:
        raise RuntimeError(f'pytest ended with exit code {code} and ran no test: its output is above')
    return rows


def benchmark(script, options):
    """A part that runs one of the benchmarks, and gives its record; None where it failed."""

    def run(args, folder, console):
        record = folder / 'record.json'
        code = call([BENCHMARKS / script, *options(args, folder), '--out', record], args, console)
        return dict(exit_code=code, record=json.loads(record.read_text()) if record.is_file() else None)

    return run


def loss_options(args, folder):
    return ['--device', args.device, '--rounds', 2 if args.quick else 15, *(['--batch', 1] if args.quick else [])]


def step_options(args, folder):
    workloads = ('demo_classification',) if args.quick else WORKLOADS
    return ['--device', args.device, '--rounds', 2 if args.quick else 15, '--workloads', *workloads]


def kill_options(args, folder):
    kills = ['--kills', 1, '--terminations', 1, '--epochs', 2] if args.quick else ['--kills', 6, '--terminations', 2]
    return [*kills, '--data', args.data, '--work-dir', folder / 'runs']


RUN = dict(
    tests=tests,
    loss=benchmark('lipschitz_loss.py', loss_options),
    steps=benchmark('train_step.py', step_options),
    kills=benchmark('crash_resume.py', kill_options),
)


def page(record):
    """The report in Markdown."""
    place = record['machine']
    where = ', '.join(place['gpus']) or 'the CPU'
    lines = ['# GPU check', '', f'On {where}, torch {place["torch"]}, CUDA {place["cuda"]}, Python {place["python"]}.']
    if 'tests' in record:
        lines += ['', '| test | outcome | seconds |', '| --- | --- | ---: |']
        for row in record['tests']:
            why = f': {row["why"]}'.replace('|', '\\|') if row['why'] else ''
            lines.append(f'| {row["name"]} | {row["outcome"]}{why} | {row["seconds"]:.1f} |')
    if record.get('loss', {}).get('record'):
        lines += ['', "| loss of ResNet-50 maps | ms | times as fast as the authors' |", '| --- | ---: | ---: |']
        for name, row in record['loss']['record']['results'].items():
            lines.append(f'| {name} | {row["ms"]:.2f} | {row["speedup"]:.1f} |')
    if record.get('steps', {}).get('record'):
        lines += ['', '| step of the whole recipe | of the floor | peak memory of the floor |', '| --- | ---: | ---: |']
        for name, workload in record['steps']['record']['workloads'].items():
            ours, floor = (workload['variants'][key] for key in ('ours', 'floor'))
            lines.append(f'| {name} | {ours["ratio"]:.2f} | {ours["peak_mib"] / floor["peak_mib"]:.2f} |')
    if record.get('kills', {}).get('record'):
        rows = record['kills']['record']['rows']
        equal = sum(not row['differs'] for row in rows)
        lines += ['', f'{equal} of {len(rows)} killed trainings ended with the bits of one that was not killed.']
    return '\n'.join(lines) + '\n'


def failures(record):
    """A name for each thing that went wrong."""
    failed = [row['name'] for row in record.get('tests', []) if row['outcome'] in ('failed', 'error')]
    return failed + [part for part in PARTS[1:] if record.get(part, {}).get('exit_code')]


def main(args):
    check(args)
    console, record = Console(), dict(machine=machine(args.device))
    with tempfile.TemporaryDirectory() as scratch:
        for part in args.parts:
            folder = Path(scratch) / part
            folder.mkdir()
            record[part] = RUN[part](args, folder, console)
            AtomicBackend().put_text(json.dumps(record, indent=1) + '\n', args.out / 'gpu_check.json')
            AtomicBackend().put_text(page(record), args.out / 'gpu_check.md')
    console.print(f'written: [bold]{args.out / "gpu_check.md"}[/bold], [bold]{args.out / "gpu_check.json"}[/bold]')
    failed = failures(record)
    if failed:
        raise ValueError(f'{len(failed)} checks failed: {", ".join(failed)}; their output is above')


if __name__ == '__main__':
    run_tool(main, make_parser())
