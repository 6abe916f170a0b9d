"""Cost of the Lipschitz loss against the authors' formulation, side by side in one process.

The authors' formulation is written here from its equation (LONDON, ICCV 2021, as in their ImageNet code): two
explicit transmitting matrices a pair, K = M M^T, five steps of power iteration from ones with the gradient through
every step. Both take the same four maps, forward and backward, in alternation; medians are printed. Then our own cost
is measured as the batch, the positions and the channels grow, and the exponents of its growth are fitted.

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
from measure import exponent, hot_spots, in_turns, peak_mib, summary
from rich.console import Console
from rich.table import Table

from mmlckd.functional import transmitting_norm

RESNET50_AT_224 = [(256, 56), (512, 28), (1024, 14), (2048, 7)]  # (channels, height = width) of the four stages


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=int, default=8, help='images a batch (default: 8)')
    parser.add_argument(
        '--rounds', type=int, default=15, help='timed rounds, each running every variant once (default: 15)'
    )
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default: 2)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/benchmarks/lipschitz_loss.json'), help='where the JSON goes'
    )
    return parser.parse_args()


def authors_norm(feat_in, feat_out, num_iters=5):
    """sigma_max of the transmitting matrix as the authors compute it: K = M M^T, unrolled power iteration from ones."""
    if feat_in.shape[2:] != feat_out.shape[2:]:
        feat_in = F.adaptive_avg_pool2d(feat_in, feat_out.shape[2:])
    feat_in, feat_out = feat_in.flatten(2), feat_out.flatten(2)
    matrix = torch.bmm(feat_in, feat_out.transpose(1, 2)) / feat_in.shape[-1]
    gram = torch.bmm(matrix, matrix.transpose(1, 2))
    vector = gram.new_ones(len(gram), gram.shape[1], 1)
    for _ in range(num_iters):
        vector = F.normalize(torch.bmm(gram, vector), dim=1)
    return torch.bmm(vector.transpose(1, 2), torch.bmm(gram, vector)).flatten().sqrt()


def exact_norm(feat_in, feat_out, center=False):
    """The same number in float64 by singular value decomposition: the oracle."""
    feat_in, feat_out = feat_in.double(), feat_out.double()
    if feat_in.shape[2:] != feat_out.shape[2:]:
        feat_in = F.adaptive_avg_pool2d(feat_in, feat_out.shape[2:])
    feat_in, feat_out = feat_in.flatten(2), feat_out.flatten(2)
    if center:
        feat_in = feat_in - feat_in.mean(-1, keepdim=True)
    return torch.linalg.matrix_norm(feat_in @ feat_out.mT / feat_in.shape[-1], 2)


def lipschitz_loss(norm, student, teacher):
    """The authors' absolute squared distance with weights 1/8, 1/4, 1/2, deepest pair heaviest."""
    total = 0.0
    for k in range(len(student) - 1):
        distance = norm(student[k], student[k + 1]) - norm(teacher[k], teacher[k + 1]).detach()
        total = total + 2.0 ** (k + 1 - len(student)) * distance.square().mean()
    return total


def make_maps(shapes, batch, device, seed=0):
    """Smooth, rectified, correlated maps: a random deep stack applied to random images, like a network's own
    features.
    """
    generator = torch.Generator().manual_seed(seed)
    size = shapes[0][1]
    feat = F.interpolate(
        torch.randn(batch, 16, max(size // 4, 1), max(size // 4, 1), generator=generator), size=size, mode='bilinear'
    )
    maps = []
    for channels, size in shapes:
        feat = F.adaptive_avg_pool2d(feat, size)
        mix = torch.randn(channels, feat.shape[1], generator=generator) / feat.shape[1] ** 0.5
        feat = F.relu(
            torch.einsum('oc,bchw->bohw', mix, feat)
            + 0.1 * torch.randn(batch, channels, size, size, generator=generator)
        )
        maps.append(feat.contiguous().to(device))
    return maps


def step(norm, student, teacher):
    return torch.autograd.grad(lipschitz_loss(norm, student, teacher), student)


def compare(variants, shapes, batch, rounds, device, console, description='timing'):
    """Median and middle half of the step's milliseconds, for each variant, in alternation; the peak memory beside it.

    ``peak_mib`` is what a step takes beyond the maps; ``extra_mib`` leaves out the gradients of the maps as well, which
    any loss on these maps returns: the larger of the forward's peak and the whole step's peak less those gradients.
    """
    student, teacher = make_maps(shapes, batch, device, 0), make_maps(shapes, batch, device, 1)
    for feat in student:
        feat.requires_grad_()
    steps = {name: partial(step, norm, student, teacher) for name, norm in variants.items()}
    times = in_turns(steps, rounds, device, description, console)
    gradients = sum(feat.numel() * feat.element_size() for feat in student) / 2**20
    result = {}
    for name, norm in variants.items():
        time = summary(times[name])
        peak = peak_mib(steps[name], device)
        extra = max(peak - gradients, peak_mib(partial(lipschitz_loss, norm, student, teacher), device))
        result[name] = dict(ms=time['median'], ms_low=time['low'], ms_high=time['high'], peak_mib=peak, extra_mib=extra)
    return result


def accuracy(shapes, batch, device, center):
    """Worst relative error of the value against the oracle, and the cosine of the two gradients."""
    maps = make_maps(shapes, min(batch, 2), device, 2)
    ours, exact = ([feat.clone().requires_grad_() for feat in maps] for _ in range(2))
    errors = []
    for k in range(len(maps) - 1):
        value, truth = (
            transmitting_norm(ours[k], ours[k + 1], center=center),
            exact_norm(exact[k], exact[k + 1], center),
        )
        errors.append(((value - truth).abs() / truth).max().item())
        value.sum().backward()
        truth.sum().backward()
    flat = [torch.cat([feat.grad.flatten().double() for feat in feats]) for feats in (ours, exact)]
    return dict(value_error=max(errors), gradient_cosine=F.cosine_similarity(*flat, dim=0).item())


def profile(shapes, batch, device):
    """Where our time goes: the operators with the largest share of one step."""
    student, teacher = make_maps(shapes, batch, device, 0), make_maps(shapes, batch, device, 1)
    for feat in student:
        feat.requires_grad_()
    return hot_spots(partial(step, transmitting_norm, student, teacher))


def growth(batch, rounds, device, console):
    """Our milliseconds as one thing grows by known factors, and the exponent fitted to them."""
    maps, narrow = [(64, 32), (128, 16), (256, 8), (512, 4)], [(512, 4), (1024, 4), (1024, 4), (2048, 4)]
    cases = {
        'batch': {factor: (maps, factor * batch) for factor in (1, 2, 4)},
        'height x width': {
            factor**2: ([(channels, factor * size) for channels, size in maps], batch) for factor in (1, 2, 3)
        },
        'channels, 16 positions': {
            factor: ([(factor * channels, size) for channels, size in narrow], batch) for factor in (1, 2, 4)
        },
    }
    result = {}
    for name, sizes in cases.items():
        steps = {}
        for factor, case in sizes.items():
            student, teacher = make_maps(*case, device, 0), make_maps(*case, device, 1)
            steps[factor] = partial(step, transmitting_norm, [feat.requires_grad_() for feat in student], teacher)
        times = {
            factor: summary(values)['median']
            for factor, values in in_turns(steps, rounds, device, name, console).items()
        }
        result[name] = dict(
            ms={str(factor): time for factor, time in times.items()},
            exponent=exponent(list(times), list(times.values())),
        )
    return result


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    console = Console()
    variants = {
        "authors' formulation": authors_norm,
        'ours': transmitting_norm,
        'ours, centred (the default)': lambda *maps: transmitting_norm(*maps, center=True),
    }
    results = compare(variants, RESNET50_AT_224, args.batch, args.rounds, args.device, console, 'ResNet-50 maps')
    exact = {
        name: accuracy(RESNET50_AT_224, args.batch, args.device, center)
        for name, center in (('raw', False), ('centred', True))
    }
    hot = profile(RESNET50_AT_224, args.batch, args.device)
    grown = growth(args.batch, max(args.rounds // 3, 3), args.device, console)
    reference = results["authors' formulation"]

    table = Table(
        title="Lipschitz loss, forward + backward: ResNet-50's four maps at 224 px, "
        f'batch {args.batch}, {args.threads} threads'
    )
    for column in ('variant', 'ms (quartiles)', 'faster', 'peak MiB', 'less gradients', 'memory'):
        table.add_column(column, justify='left' if column == 'variant' else 'right')
    for name, row in results.items():
        row.update(speedup=reference['ms'] / row['ms'], memory_ratio=row['extra_mib'] / reference['extra_mib'])
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
        console.print(
            f'{name}: value within {row["value_error"]:.1e} of a float64 SVD, '
            f'gradient cosine {row["gradient_cosine"]:.7f}'
        )
    table = Table(title='How our cost grows')
    for column in ('with', 'factors', 'ms', 'exponent'):
        table.add_column(column, justify='left' if column == 'with' else 'right')
    for name, row in grown.items():
        table.add_row(
            name, ', '.join(row['ms']), ', '.join(f'{ms:.1f}' for ms in row['ms'].values()), f'{row["exponent"]:.2f}'
        )
    console.print(table)
    console.print('Where our time goes: ' + ', '.join(f'{row["op"]} {row["share"]:.0%}' for row in hot))

    ours = results['ours']
    targets = {
        'at least 20x faster (12x with the profile above)': (ours['speedup'] >= 20, f'{ours["speedup"]:.1f}x'),
        'at most 1/15 of the extra memory': (ours['memory_ratio'] <= 1 / 15, f'1/{1 / ours["memory_ratio"]:.1f}'),
        'value within 1e-5': (exact['raw']['value_error'] <= 1e-5, f'{exact["raw"]["value_error"]:.1e}'),
        'gradient cosine at least 0.9999': (
            exact['raw']['gradient_cosine'] >= 0.9999,
            f'{exact["raw"]["gradient_cosine"]:.7f}',
        ),
        **{
            f'cost at most linear in {name}': (row['exponent'] <= 1.05, f'exponent {row["exponent"]:.2f}')
            for name, row in grown.items()
        },
    }
    for name, (met, reached) in targets.items():
        console.print(f'{"met   " if met else "MISSED"}  {name}: {reached}')
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
