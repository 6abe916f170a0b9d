"""Cost of the Lipschitz loss against the authors' formulation, side by side in one process.

The authors' formulation is written from its equation (formulations.py): two explicit transmitting matrices a pair,
K = M M^T, five steps of power iteration from ones with the gradient through every step. Both take the same four maps,
forward and backward, in turns; medians are printed. Then our own cost is measured as the batch, the positions and the
channels grow, and the exponents of its growth are fitted.

    python tools/benchmarks/lipschitz_loss.py
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from formulations import KnownPair, authors_norm, exact_norm, lipschitz_loss, make_maps, step, student_and_teacher
from measure import exponent, hot_spots, in_turns, peak_mib, summary
from rich.console import Console
from rich.table import Table

from mmlckd.functional import transmitting_norm

RESNET50_AT_224 = [(256, 56), (512, 28), (1024, 14), (2048, 7)]  # (channels, height = width) of the four stages
VARIANTS = {
    "authors' formulation": authors_norm,
    'ours': transmitting_norm,
    'ours, centred (the default)': partial(transmitting_norm, center=True),
    'M formed, its pair known': KnownPair(form=True),
    'pair known': KnownPair(),
}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--batch', type=int, default=8, help='images a batch (default: 8)')
    add('--rounds', type=int, default=15, help='timed rounds, each running every variant once (default: 15)')
    add('--threads', type=int, default=2, help='CPU threads (default: 2)')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add('--out', type=Path, default=Path('work_dirs/benchmarks/lipschitz_loss.json'), help='where the JSON goes')
    return parser.parse_args()


def compare(batch, rounds, device, console):
    """Median and middle half of the step's milliseconds for each variant, in turns, and the peak memory.

    ``peak_mib`` is what a step takes beyond the maps. ``extra_mib`` leaves out the gradients of the maps as well, which
    any loss on these maps returns: it is the larger of the forward's peak and the whole step's peak less those
    gradients.
    """
    student, teacher = student_and_teacher(RESNET50_AT_224, batch, device)
    steps = {name: partial(step, norm, student, teacher) for name, norm in VARIANTS.items()}
    times = in_turns(steps, rounds, device, 'ResNet-50 maps', console)
    gradients = sum(feat.numel() * feat.element_size() for feat in student) / 2**20
    result = {}
    for name, norm in VARIANTS.items():
        time = summary(times[name])
        peak = peak_mib(steps[name], device)
        extra = max(peak - gradients, peak_mib(partial(lipschitz_loss, norm, student, teacher), device))
        result[name] = dict(ms=time['median'], ms_low=time['low'], ms_high=time['high'], peak_mib=peak, extra_mib=extra)
    reference = result["authors' formulation"]
    for row in result.values():
        row.update(speedup=reference['ms'] / row['ms'], memory_ratio=row['extra_mib'] / reference['extra_mib'])
    return result


def accuracy(batch, device, center):
    """Worst relative error of the value against the oracle, and the cosine of the two gradients."""
    maps = make_maps(RESNET50_AT_224, min(batch, 2), device, 2)
    ours, exact = ([feat.clone().requires_grad_() for feat in maps] for _ in range(2))
    errors = []
    for k in range(len(maps) - 1):
        value = transmitting_norm(ours[k], ours[k + 1], center=center)
        truth = exact_norm(exact[k], exact[k + 1], center)
        errors.append(((value - truth).abs() / truth).max().item())
        value.sum().backward()
        truth.sum().backward()
    flat = [torch.cat([feat.grad.flatten().double() for feat in feats]) for feats in (ours, exact)]
    return dict(value_error=max(errors), gradient_cosine=F.cosine_similarity(*flat, dim=0).item())


def growth(batch, rounds, device, console):
    """Our milliseconds as one thing grows by known factors, and the exponent fitted to them."""
    maps, narrow = [(64, 32), (128, 16), (256, 8), (512, 4)], [(512, 4), (1024, 4), (1024, 4), (2048, 4)]
    cases = {'batch': {}, 'height x width': {}, 'channels, 16 positions': {}}
    for factor in (1, 2, 4):
        cases['batch'][factor] = maps, factor * batch
    for factor in (1, 2, 3):
        cases['height x width'][factor**2] = [(channels, factor * size) for channels, size in maps], batch
    for factor in (1, 2, 4):
        cases['channels, 16 positions'][factor] = [(factor * channels, size) for channels, size in narrow], batch
    result = {}
    for name, sizes in cases.items():
        steps = {}
        for factor, case in sizes.items():
            steps[factor] = partial(step, transmitting_norm, *student_and_teacher(*case, device))
        times = in_turns(steps, rounds, device, name, console)
        middle = {factor: summary(values)['median'] for factor, values in times.items()}
        result[name] = dict(
            ms={str(factor): time for factor, time in middle.items()},
            exponent=exponent(list(middle), list(middle.values())),
        )
    return result


def targets_of(results, exact, grown):
    """Name to whether a target is met, and what was reached."""
    ours = results['ours']
    error, cosine = exact['value_error'], exact['gradient_cosine']
    targets = {
        'at least 25x faster': (ours['speedup'] >= 25, f'{ours["speedup"]:.1f}x'),
        'at most 1/15 of the extra memory': (ours['memory_ratio'] <= 1 / 15, f'1/{1 / ours["memory_ratio"]:.1f}'),
        'value within 1e-5': (error <= 1e-5, f'{error:.1e}'),
        'gradient cosine at least 0.9999': (cosine >= 0.9999, f'{cosine:.7f}'),
    }
    for name, row in grown.items():
        targets[f'cost at most linear in {name}'] = row['exponent'] <= 1.05, f'exponent {row["exponent"]:.2f}'
    return targets


def right_aligned_table(title, first, *columns):
    table = Table(title=title)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify='right')
    return table


def show(args, results, exact, grown, hot, targets, console):
    table = right_aligned_table(
        f"Lipschitz loss, forward + backward: ResNet-50's maps at 224 px, batch {args.batch}, {args.threads} threads",
        *('variant', 'ms (quartiles)', 'faster', 'peak MiB', 'less gradients', 'memory'),
    )
    for name, row in results.items():
        table.add_row(
            name,
            f'{row["ms"]:.0f} ({row["ms_low"]:.0f} to {row["ms_high"]:.0f})',
            f'{row["speedup"]:.1f}x',
            f'{row["peak_mib"]:.0f}',
            f'{row["extra_mib"]:.0f}',
            f'1/{1 / row["memory_ratio"]:.1f}',
        )
    console.print(table)
    for name, row in exact.items():
        error, cosine = row['value_error'], row['gradient_cosine']
        console.print(f'{name}: value within {error:.1e} of a float64 SVD, gradient cosine {cosine:.7f}')
    table = right_aligned_table('How our cost grows', 'with', 'factors', 'ms', 'exponent')
    for name, row in grown.items():
        times = ', '.join(f'{ms:.1f}' for ms in row['ms'].values())
        table.add_row(name, ', '.join(row['ms']), times, f'{row["exponent"]:.2f}')
    console.print(table)
    console.print('Where our time goes: ' + ', '.join(f'{row["op"]} {row["share"]:.0%}' for row in hot))
    for name, (met, reached) in targets.items():
        console.print(f'{"met   " if met else "MISSED"}  {name}: {reached}')


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    console = Console()
    results = compare(args.batch, args.rounds, args.device, console)
    exact = {'raw': accuracy(args.batch, args.device, False), 'centred': accuracy(args.batch, args.device, True)}
    maps = student_and_teacher(RESNET50_AT_224, args.batch, args.device)
    hot = hot_spots(partial(step, transmitting_norm, *maps))
    grown = growth(args.batch, max(args.rounds // 3, 3), args.device, console)
    targets = targets_of(results, exact['raw'], grown)
    show(args, results, exact, grown, hot, targets, console)
    record = dict(
        results=results,
        accuracy=exact,
        growth=grown,
        profile=hot,
        targets={name: dict(met=met, reached=reached) for name, (met, reached) in targets.items()},
        batch=args.batch,
        rounds=args.rounds,
        threads=args.threads,
        device=args.device,
        torch=torch.__version__,
        python=sys.version.split()[0],
        machine=platform.processor() or platform.machine(),
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=2) + '\n')
    console.print(f'Record: {args.out}')


if __name__ == '__main__':
    main()
