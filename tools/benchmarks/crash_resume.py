"""Kill a training at random moments, resume it, and compare it with one that was never interrupted, bit by bit.

SIGKILL comes within iterations, while a checkpoint is written, and within evaluations; SIGTERM in some more trainings.
A moment is drawn as a phase of the run, and as a part of the time that such a phase took in the uninterrupted run. The
table says where it fell.

    python tools/benchmarks/crash_resume.py
    python tools/benchmarks/crash_resume.py --kills 6 --ranks 2      # two processes, killed together
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import signal
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from killed_training import Event, Training
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.distributed.elastic.utils.distributed import get_free_port

from mmlckd.checkpoints import AtomicBackend, read_checkpoint
from mmlckd.cli import run_tool

COMPARED = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'random_states')


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=20, help='moments of SIGKILL (default: 20)')
    parser.add_argument('--terminations', type=int, default=4, help='moments of SIGTERM, beside those (default: 4)')
    parser.add_argument(
        '--epochs', type=int, default=5, help='epochs, each of them with a checkpoint and an evaluation (default: 5)'
    )
    parser.add_argument('--ranks', type=int, default=1, help='processes of the training (default: 1)')
    parser.add_argument('--workers', type=int, default=0, help='workers of its data loader (default: 0)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (default: 0)')
    parser.add_argument(
        '--options', nargs='+', default=[], metavar='KEY=VALUE', help='further config overrides of the training'
    )
    parser.add_argument('--data', default='data/mnist5k', help='folder of MNIST-5k (default: data/mnist5k)')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/crash_resume'), help='folder of the trainings, made anew'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/benchmarks/crash_resume.json'), help='where the JSON goes'
    )
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def durations(events: list[Event]) -> dict[str, float]:
    """Median seconds of each phase."""
    spans: dict[str, list[float]] = {}
    for one, following in zip(events, events[1:]):
        spans.setdefault(one.phase, []).append(following.time - one.time)
    return {phase: statistics.median(values) for phase, values in spans.items()}


def moments(args, events: list[Event]) -> list[dict]:
    """Where to strike: a phase, the iteration at which it begins, and how far into it."""
    chance = random.Random(args.seed)
    kinds = [('SIGKILL', ('iteration', 'writing', 'evaluation')[i % 3]) for i in range(args.kills)]
    kinds += [('SIGTERM', ('iteration', 'evaluation')[i % 2]) for i in range(args.terminations)]
    return [
        dict(
            signal=name,
            phase=phase,
            iter=chance.choice([event.iter for event in events if event.phase == phase]),
            part=chance.random(),
        )
        for name, phase in kinds
    ]


def strike(args, folder: Path, moment: dict, seconds: dict[str, float], end: Event) -> dict:
    """Train, strike, resume; what became of it. ``end`` is the last event of a training that nothing strikes."""
    killed = Training(args, folder)
    killed.until(moment['phase'], moment['iter'])
    time.sleep(moment['part'] * seconds[moment['phase']])
    struck = time.monotonic()
    code = killed.end(getattr(signal, moment['signal']))
    before = [event for event in killed.events if event.time < struck]
    at, written = before[-1], max((event.iter for event in before if event.phase == 'written'), default=0)
    parts = [path.name for path in folder.glob('*.part')]
    resumed = Training(args, folder, resume=True)
    failed = resumed.end() != 0
    start = resumed.events[0].iter if resumed.events else 0
    begun = max(event.iter + (event.phase == 'iteration') for event in killed.events)
    return dict(
        moment,
        fell_in=at.phase,
        fell_at=at.iter,
        milliseconds=1000 * (struck - at.time),
        exit_code=code,
        finished=killed.events[-1][:2] == end[:2],
        half_written=parts,
        last_checkpoint=written,
        resumed_from=start,
        repeated=begun - start,
        differs=['the resumed run failed'] if failed else differences(args.work_dir / 'uninterrupted', folder),
    )


def differences(one: Path, other: Path) -> list[str]:
    """What two finished trainings differ in: their last checkpoints, and which epoch was the best."""
    found = [
        f'{name} in only one'
        for name in {path.name for path in one.glob('*.pth')} ^ {path.name for path in other.glob('*.pth')}
    ]
    if found:
        return found
    for path in one.glob('*.pth'):
        contents = [read_checkpoint(str(folder / path.name)) for folder in (one, other)]
        found += [
            f'{path.name}: {part}' for part in COMPARED if not equal(*(content.get(part) for content in contents))
        ]
    return found


def equal(one, other) -> bool:
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(equal(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(np.array_equal(one, other))


def sound(row: dict) -> bool:
    # Once a training is over, SIGTERM does what it does to any process.
    told = [0, -signal.SIGTERM] if row['finished'] else [143]
    codes = dict(SIGKILL=[-signal.SIGKILL], SIGTERM=told)[row['signal']]
    return not row['differs'] and row['resumed_from'] >= row['last_checkpoint'] and row['exit_code'] in codes


def main(args):
    if not Path(args.data).is_dir():
        raise FileNotFoundError(
            f'--data is {args.data!r}, which does not exist: make it with `python tools/prepare_digits.py`'
        )
    console, args.port = Console(), str(get_free_port())
    shutil.rmtree(args.work_dir, ignore_errors=True)
    args.work_dir.mkdir(parents=True)
    reference = Training(args, args.work_dir / 'uninterrupted')
    if reference.end() != 0:
        raise ValueError(f'the uninterrupted training failed: {args.work_dir / "uninterrupted.log"} says why')
    seconds = durations(reference.events)
    rows = [
        strike(args, args.work_dir / f'struck_{i:02}', moment, seconds, reference.events[-1])
        for i, moment in enumerate(
            track(moments(args, reference.events), 'training, killing, resuming', console=console)
        )
    ]

    table = Table(title=f'{args.epochs} epochs of 4 iterations, {args.ranks} processes, {args.workers} workers')
    for column in (
        '',
        'signal',
        'fell in',
        'iteration',
        'ms into it',
        'exit code',
        'half-written',
        'last checkpoint',
        'resumed from',
        'iterations repeated',
        'as uninterrupted',
    ):
        table.add_column(column)
    for i, row in enumerate(rows):
        table.add_row(
            str(i + 1),
            row['signal'],
            row['fell_in'],
            str(row['fell_at']),
            f'{row["milliseconds"]:.1f}',
            str(row['exit_code']),
            ', '.join(row['half_written']) or '-',
            str(row['last_checkpoint']),
            str(row['resumed_from']),
            str(row['repeated']),
            '; '.join(row['differs']) or 'to the bit',
        )
    console.print(table)
    record = dict(
        torch=torch.__version__,
        machine=platform.machine(),
        seed=args.seed,
        epochs=args.epochs,
        ranks=args.ranks,
        workers=args.workers,
        rows=rows,
    )
    AtomicBackend().put_text(json.dumps(record, indent=1) + '\n', args.out)
    console.print(f'this table as data: [bold]{args.out}[/bold]')
    bad = [i + 1 for i, row in enumerate(rows) if not sound(row)]
    if bad:
        raise ValueError(
            f'{len(bad)} of {len(rows)} trainings were not resumed as they should be: {", ".join(map(str, bad))}'
        )


if __name__ == '__main__':
    run_tool(main, make_parser())
