"""Cost of a distillation step of the recipes, compared with the student alone and with the floor, in one process.

The floor is what distillation cannot avoid: the student's own training step, and the teacher's forward to its deepest
tap without gradient. These are compared with it:

- the student alone;
- the recipe, whole and without each of its losses;
- the Lipschitz loss alone, without connectors and through them;
- the recipe with its teacher in bfloat16 (float16 on a GPU);
- the recipe with a second view of each batch, and local Lipschitz guidance on the logits (in detection on maps);
- the naive way: a teacher that runs through its own losses, as in general-purpose distillation wrappers.

All take turns in every round, so that a noisy machine disturbs all of them alike. Medians are printed, with the middle
half of the ratio to the floor. Also measured: peak memory, the time to build everything, and a reading of
SpectralNormHook (every layer of the student, as a share of the training between two readings at the default interval).

    python tools/benchmarks/train_step.py
    python tools/benchmarks/train_step.py --workloads cifar_c --rounds 5
"""

from __future__ import annotations

import argparse
import json
import platform
from functools import partial
from pathlib import Path

import torch
from measure import hot_spots, in_turns, peak_mib, ratios, summary
from mmengine.logging import MMLogger
from rich.console import Console
from step_report import half_precision_units, plot, report, targets
from step_variants import (
    GUIDED,
    NAIVE,
    PLAIN,
    THROUGH,
    guided,
    half_precision_error,
    reading,
    reduced_teacher,
    start_up,
    step_of,
    variants,
)
from workloads import WORKLOADS, batch_of, build, model_config

from mmlckd.cli import run_tool
from mmlckd.hooks import SpectralNormHook


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--workloads',
        nargs='+',
        choices=WORKLOADS,
        default=[name for name, workload in WORKLOADS.items() if workload.whole],
        help='which pairs (default: the four that have targets; about 45 minutes on two cores)',
    )
    parser.add_argument(
        '--rounds', type=int, default=15, help='timed rounds, each running every variant once (default: 15)'
    )
    parser.add_argument('--batch', type=int, help='images a batch (default: one that suits the device)')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default: 2)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/benchmarks/train_step.json'),
        help='where the JSON, and a figure beside it, go; other workloads in that file, measured alike, are kept',
    )
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def measure(name, args, console):
    workload = WORKLOADS[name]
    config = model_config(workload.config)
    model = build(config).to(args.device).train()
    on_gpu = args.device.startswith('cuda') and workload.gpu
    size, batch = workload.gpu if on_gpu else (workload.size, workload.batch)
    batch = args.batch or batch
    data = batch_of(model, size, batch, args.device)
    reduced = reduced_teacher(config, model.distiller.teacher, args.device)
    functions = variants(model, data, reduced)
    functions[GUIDED] = step_of(guided(config, model).to(args.device).train(), data)
    steps, images = list(functions), (data['inputs'], data['data_samples'])
    functions.update(
        {
            'reading': reading(model, data),
            'teacher': partial(model.distiller.teacher, *images),
            'teacher, half': partial(reduced, *images),
        }
    )
    times = in_turns(functions, args.rounds, args.device, name, console)
    weighed = 'student alone', 'floor', PLAIN, THROUGH, 'ours', GUIDED
    memory = {key: peak_mib(functions[key], args.device) for key in weighed}
    interval, middle = SpectralNormHook().interval, {key: summary(values)['median'] for key, values in times.items()}
    rows = {}
    for key in steps:
        ratio = ratios(times, key, 'floor')
        rows[key] = dict(
            ms=middle[key], peak_mib=memory.get(key), ratio=ratio['median'], quartiles=[ratio['low'], ratio['high']]
        )
    return dict(
        config=workload.config,
        batch=batch,
        size=size,
        variants=rows,
        of_naive=ratios(times, 'ours', NAIVE)['median'],
        second_view=ratios(times, GUIDED, 'ours')['median'],
        teacher=dict(
            ms=middle['teacher'],
            half_ms=middle['teacher, half'],
            faster=ratios(times, 'teacher', 'teacher, half')['median'],
            norm_error=half_precision_error(model, data, reduced),
        ),
        hook=dict(ms=middle['reading'], interval=interval, share=middle['reading'] / (interval * middle['ours'])),
        start_up=start_up(config, console),
        profile=hot_spots(functions['ours']),
        profile_of_floor=hot_spots(functions['floor']),
    )


def main(args):
    torch.set_num_threads(args.threads)
    MMLogger.get_instance('benchmark', log_level='ERROR')  # it would tell what each weight is drawn from
    console = Console()
    has_units = 'with' if half_precision_units() else 'without'
    units = f'{has_units} units for matrices in half precision'
    place = dict(
        torch=torch.__version__, machine=platform.machine(), device=args.device, threads=args.threads, units=units
    )
    record = json.loads(args.out.read_text()) if args.out.is_file() else {}
    kept = record.get('workloads', {}) if {key: record.get(key) for key in place} == place else {}
    record = dict(place, workloads={name: kept[name] for name in WORKLOADS if name in kept})
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.workloads:
        result = record['workloads'][name] = dict(rounds=args.rounds, **measure(name, args, console))
        result['targets'] = targets(name, result)
        report(name, result, console)
        args.out.write_text(json.dumps(record, indent=1) + '\n')
    plot(record['workloads'], args.out.with_suffix('.png'))
    console.print(f'this as data and as a figure: [bold]{args.out}[/bold], [bold]{args.out.with_suffix(".png")}[/bold]')


if __name__ == '__main__':
    run_tool(main, make_parser())
