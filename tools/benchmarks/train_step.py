"""Cost of a distillation step of the recipes, beside the student alone and the floor, in one process.

The floor is what distillation cannot avoid: the student's own training step, and the teacher's forward to its deepest tap
without gradient. Beside it stand the student alone; the recipe, whole and without each of its losses; the Lipschitz loss alone,
without connectors; the recipe with its teacher in bfloat16 (float16 on a GPU); and the naive way, a teacher run through its own
losses as general-purpose distillation wrappers do. All take turns in every round, so that a noisy machine is noisy for all; medians
are printed, with the middle half of the ratio to the floor. Peak memory, the time to build everything and a reading of
SpectralNormHook (every layer of the student, as a share of the training between two readings at the default interval) are
measured too.

    python tools/benchmarks/train_step.py
    python tools/benchmarks/train_step.py --workloads cifar_c --rounds 5
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import matplotlib
import torch
from matplotlib.figure import Figure
from measure import hot_spots, in_turns, peak_mib, ratios, summary
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table
from workloads import WORKLOADS, batch_of, build, model_config

from mmlckd.analysis import LayerNorms
from mmlckd.analysis.figures import STUDENT, STYLE, TEACHER
from mmlckd.cli import run_tool
from mmlckd.distillers import LipschitzDistiller
from mmlckd.hooks import SpectralNormHook
from mmlckd.hooks.spectral_norm_hook import read_statistics
from mmlckd.losses import LipschitzKDLoss
from mmlckd.registry import MODELS
from mmlckd.taps import FeatureTap

PLAIN, REDUCED, NAIVE = 'Lipschitz alone, no connectors', 'ours, teacher in half precision', 'naive'
NAIVE_TARGET, MEMORY_TARGET, HOOK_TARGET, STARTUP_TARGET, NORM_TARGET = 0.87, 1.10, 0.02, 1.2, 0.01


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--workloads', nargs='+', choices=WORKLOADS, default=list(WORKLOADS), help='which pairs (default: all)'
    )
    parser.add_argument(
        '--rounds', type=int, default=15, help='timed rounds, each running every variant once (default: 15)'
    )
    parser.add_argument('--batch', type=int, help='images a batch (default: one that suits a CPU)')
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


def naive_teacher(teacher, inputs, data_samples):
    """The teacher as general-purpose wrappers run it: through its heads and losses."""
    with torch.no_grad(), FeatureTap(teacher.model, teacher.taps, copy=teacher.overwritten) as feats:
        teacher.model(teacher.adapter(inputs, data_samples), data_samples, mode='loss')
    return feats


def variants(model, data, reduced):
    """Name to a function that does one optimizer step of it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    inputs, samples = data['inputs'], data['data_samples']

    def step(forward=model, before=None, **changed):
        with mock.patch.multiple(model.distiller, **{'entries': model.distiller.entries, **changed}):
            if before is not None:
                before(inputs, samples)
            loss, _ = model.parse_losses(forward(inputs, samples, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    plain = [
        replace(entry, connectors=None, max_share=None)
        for entry in model.distiller.entries
        if isinstance(entry.loss, LipschitzKDLoss)
    ]
    alone = super(LipschitzDistiller, model).forward  # the student's own
    functions = {
        'student alone': partial(step, alone),
        'floor': partial(step, alone, model.distiller.teacher),
        PLAIN: partial(step, entries=plain),
        'ours': step,
    }
    for entry in model.distiller.entries:
        functions[f'ours without {entry.name}'] = partial(
            step, entries=[other for other in model.distiller.entries if other is not entry]
        )
    functions[REDUCED] = partial(step, teachers=dict(teacher=reduced))
    functions[NAIVE] = partial(step, teachers=dict(teacher=partial(naive_teacher, model.distiller.teacher)))
    return functions


def reduced_teacher(config, teacher, device):
    """The same teacher at half precision."""
    precision = 'fp16' if torch.device(device).type == 'cuda' else 'bf16'
    other = build(dict(config, teacher=dict(config['teacher'], precision=precision))).to(device).distiller.teacher
    other.model.load_state_dict(teacher.model.state_dict())
    return other


def half_precision_error(model, data, reduced):
    """Largest relative change of a pair's mean teacher norm when the teacher runs at half precision."""
    readings = []
    for teacher in (model.distiller.teacher, reduced):
        with mock.patch.object(model.distiller, 'teachers', dict(teacher=teacher)), torch.no_grad():
            model(data['inputs'], data['data_samples'], mode='loss')
        readings.append(read_statistics(model)['teacher'])
    return max(abs(half / full - 1) for full, half in zip(*readings))


def reading(model, data):
    """A function that does what a reading of SpectralNormHook does, with all layers of the student."""
    norms = LayerNorms(model, '')
    with norms.watch():
        model(data['inputs'], data['data_samples'], mode='loss')

    def read():
        read_statistics(model)
        norms.measure(num_iters=2).tolist()

    return read


def start_up(config, console):
    """Seconds to build the distiller with its teacher's weights from a file, and to build and load the two networks by themselves."""
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/teacher.pth'
        torch.save(dict(state_dict=MODELS.build(config['teacher']['model']).state_dict()), path)
        given = dict(config, teacher=dict(config['teacher'], checkpoint=path))

        def both():
            build(
                dict(
                    config['student'],
                    data_preprocessor=config['student'].get('data_preprocessor', config['data_preprocessor']),
                )
            )
            MODELS.build(config['teacher']['model']).load_state_dict(torch.load(path, weights_only=True)['state_dict'])

        times = in_turns(dict(ours=lambda: build(given), both=both), 5, 'cpu', 'start-up', console)
    return dict(
        seconds=summary(times['ours'])['median'] / 1000,
        both=summary(times['both'])['median'] / 1000,
        ratio=ratios(times, 'ours', 'both')['median'],
    )


def measure(name, args, console):
    workload = WORKLOADS[name]
    config = model_config(workload.config)
    model = build(config).to(args.device).train()
    data = batch_of(model, workload.size, args.batch or workload.batch, args.device)
    reduced = reduced_teacher(config, model.distiller.teacher, args.device)
    functions = variants(model, data, reduced)
    steps, batch = list(functions), (data['inputs'], data['data_samples'])
    functions.update(
        {
            'reading': reading(model, data),
            'teacher': partial(model.distiller.teacher, *batch),
            'teacher, half': partial(reduced, *batch),
        }
    )
    times = in_turns(functions, args.rounds, args.device, name, console)
    memory = {key: peak_mib(functions[key], args.device) for key in ('student alone', 'floor', PLAIN, 'ours')}
    interval, middle = SpectralNormHook().interval, {key: summary(values)['median'] for key, values in times.items()}
    rows = {}
    for key in steps:
        ratio = ratios(times, key, 'floor')
        rows[key] = dict(
            ms=middle[key], peak_mib=memory.get(key), ratio=ratio['median'], quartiles=[ratio['low'], ratio['high']]
        )
    return dict(
        config=workload.config,
        batch=args.batch or workload.batch,
        size=workload.size,
        variants=rows,
        of_naive=ratios(times, 'ours', NAIVE)['median'],
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


def half_precision_units():
    """Whether the processor multiplies matrices in half precision: a GPU, or a CPU with AVX512_BF16 or AMX."""
    return torch.cuda.is_available() or any(
        getattr(torch.cpu, f'_is_{unit}_supported', bool)() for unit in ('avx512_bf16', 'amx_tile')
    )


def targets(name, result):
    """What was aimed at: what it is, whether it is met, and what was reached."""
    workload, rows = WORKLOADS[name], result['variants']
    memory = rows['ours']['peak_mib'] / rows['floor']['peak_mib']
    cases = [
        (f'{PLAIN}, of the floor', workload.plain, rows[PLAIN]['ratio'], '{:.3f}'),
        ('ours, of the floor', workload.whole, rows['ours']['ratio'], '{:.3f}'),
        ('ours, of naive', NAIVE_TARGET if name == 'faster_rcnn' else None, result['of_naive'], '{:.3f}'),
        ('peak memory, of the floor', MEMORY_TARGET if workload.whole else None, memory, '{:.3f}'),
        ('a reading of the hook, of training', HOOK_TARGET, result['hook']['share'], '{:.2%}'),
        (
            'start-up, of building both networks',
            STARTUP_TARGET if workload.whole else None,
            result['start_up']['ratio'],
            '{:.2f}',
        ),
        (
            "half precision, error of teacher's norms",
            NORM_TARGET if workload.whole else None,
            result['teacher']['norm_error'],
            '{:.2%}',
        ),
    ]
    met = {
        title: dict(target=f'at most {form.format(bound)}', met=value <= bound, reached=form.format(value))
        for title, bound, value, form in cases
        if bound is not None
    }
    if workload.whole and half_precision_units():
        faster = result['teacher']['faster']
        met['half precision, teacher'] = dict(target='at least 2 x faster', met=faster >= 2, reached=f'{faster:.2f} x')
    return met


def report(name, result, console):
    table = Table(title=f'{name}: {result["config"]}, batch {result["batch"]}, {result["size"]} px')
    for column in ('', 'ms', 'of the floor', 'middle half', 'peak MiB'):
        table.add_column(column, justify='right' if column else 'left')
    for key, row in result['variants'].items():
        table.add_row(
            key,
            f'{row["ms"]:.0f}',
            f'{row["ratio"]:.3f}',
            '{:.3f} to {:.3f}'.format(*row['quartiles']),
            f'{row["peak_mib"]:.0f}' if row['peak_mib'] else '',
        )
    console.print(table)
    for title, target in result['targets'].items():
        console.print(
            f'{"met   " if target["met"] else "MISSED"}  {title}: {target["reached"]} (target: {target["target"]})'
        )
    for title, key in (('our', 'profile'), ("the floor's", 'profile_of_floor')):
        console.print(
            f'[dim]where {title} time goes: '
            + ', '.join(f'{row["op"]} {row["share"]:.0%}' for row in result[key])
            + '[/dim]'
        )
    console.print()


def plot(workloads, path):
    """Ratios to the floor, with their middle half, a row a workload."""
    drawn = {
        'student alone': ('#999999', 's'),
        PLAIN: (STUDENT, 'o'),
        'ours': ('#009E73', 'D'),
        REDUCED: ('#CC79A7', 'v'),
        NAIVE: (TEACHER, '^'),
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 1.4 + 0.62 * len(workloads)), layout='constrained')
        axes = figure.subplots()
        for i, (key, (colour, marker)) in enumerate(drawn.items()):
            rows = [workload['variants'][key] for workload in workloads.values()]
            heights = [row + 0.13 * (i - 2) for row in range(len(rows))]
            spread = [[abs(row['ratio'] - row['quartiles'][side]) for row in rows] for side in (0, 1)]
            axes.errorbar(
                [row['ratio'] for row in rows],
                heights,
                xerr=spread,
                color=colour,
                marker=marker,
                markersize=5,
                linestyle='',
                label=key,
            )
        axes.axvline(1, color='black', linewidth=1)
        axes.set_yticks(
            range(len(workloads)),
            [
                f'{Path(workload["config"]).stem}\n{workload["batch"]} x {workload["size"]} px'
                for workload in workloads.values()
            ],
            fontsize=8,
        )
        axes.invert_yaxis()
        axes.set_xlabel('step time, of the floor; bars: middle half of the rounds')
        figure.legend(loc='outside upper center', ncols=3, frameon=False, fontsize=8)
        figure.savefig(path, dpi=150)


def main(args):
    torch.set_num_threads(args.threads)
    MMLogger.get_instance('benchmark', log_level='ERROR')  # what each weight was drawn from is not of interest here
    console = Console()
    units = f'{"with" if half_precision_units() else "without"} units for matrices in half precision'
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
