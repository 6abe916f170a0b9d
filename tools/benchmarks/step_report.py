"""What the step benchmark aims at, and its table and figure."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from rich.table import Table
from step_variants import GUIDED, NAIVE, PLAIN, REDUCED, THROUGH
from workloads import WORKLOADS

from mmlckd.analysis.figures import STUDENT, STYLE, TEACHER

NAIVE_TARGET, MEMORY_TARGET, HOOK_TARGET, STARTUP_TARGET, NORM_TARGET = 0.87, 1.10, 0.02, 1.2, 0.01
VIEW_TARGET, CONNECTORS_TARGET = 1.35, 0.02


def half_precision_units():
    """Whether the processor multiplies matrices in half precision: a GPU, or a CPU with AVX512_BF16 or AMX."""
    if torch.cuda.is_available():
        return True
    never = bool  # bool() is False, for a torch without these functions
    checks = (getattr(torch.cpu, f'_is_{unit}_supported', never) for unit in ('avx512_bf16', 'amx_tile'))
    return any(check() for check in checks)


def targets(name, result):
    """The aims, by title: each one's target, whether it is met, and what was reached."""
    workload, rows = WORKLOADS[name], result['variants']
    memory = rows['ours']['peak_mib'] / rows['floor']['peak_mib']
    connectors = rows[THROUGH]['ratio'] - rows[PLAIN]['ratio']
    cases = [
        (f'{PLAIN}, of the floor', workload.plain, rows[PLAIN]['ratio'], '{:.3f}'),
        (
            'what connectors add to Lipschitz alone, of the floor',
            CONNECTORS_TARGET if workload.whole else None,
            connectors,
            '{:.3f}',
        ),
        ('ours, of the floor', workload.whole, rows['ours']['ratio'], '{:.3f}'),
        ('ours, of naive', NAIVE_TARGET if name == 'faster_rcnn' else None, result['of_naive'], '{:.3f}'),
        ('peak memory, of the floor', MEMORY_TARGET if workload.whole else None, memory, '{:.3f}'),
        ('a second view, of ours', VIEW_TARGET if workload.whole else None, result['second_view'], '{:.3f}'),
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
        mark = 'met   ' if target['met'] else 'MISSED'
        console.print(f'{mark}  {title}: {target["reached"]} (target: {target["target"]})')
    for title, key in (('our', 'profile'), ("the floor's", 'profile_of_floor')):
        shares = ', '.join(f'{row["op"]} {row["share"]:.0%}' for row in result[key])
        console.print(f'[dim]where {title} time goes: {shares}[/dim]')
    console.print()


def plot(workloads, path):
    """Draw the ratios to the floor with their middle half, a row for each workload."""
    drawn = {
        'student alone': ('#999999', 's'),
        PLAIN: (STUDENT, 'o'),
        'ours': ('#009E73', 'D'),
        REDUCED: ('#CC79A7', 'v'),
        GUIDED: ('#E69F00', 'P'),
        NAIVE: (TEACHER, '^'),
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 1.4 + 0.62 * len(workloads)), layout='constrained')
        axes = figure.subplots()
        for i, (key, (colour, marker)) in enumerate(drawn.items()):
            rows = [workload['variants'][key] for workload in workloads.values()]
            heights = [row + 0.13 * (i - 2.5) for row in range(len(rows))]
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
        titles = [
            f'{Path(workload["config"]).stem}\n{workload["batch"]} x {workload["size"]} px'
            for workload in workloads.values()
        ]
        axes.set_yticks(range(len(workloads)), titles, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel('step time, of the floor; bars: middle half of the rounds')
        figure.legend(loc='outside upper center', ncols=3, frameon=False, fontsize=8)
        figure.savefig(path, dpi=150)
