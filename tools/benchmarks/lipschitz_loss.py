"""Cost of the Lipschitz loss against the authors' formulation, side by side in one process.

The authors' formulation is written here from its equation (LONDON, ICCV 2021, as in their ImageNet code): two
explicit transmitting matrices a pair, K = M M^T, five steps of power iteration from ones with the gradient through
every step. Both take the same four maps, forward and backward, in alternation; medians are printed.

    python tools/benchmarks/lipschitz_loss.py
"""

import argparse
import itertools
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from mmlckd.functional import transmitting_norm

RESNET50_AT_224 = [(256, 56), (512, 28), (1024, 14), (2048, 7)]  # (channels, height = width) of the four stages


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=int, default=8, help='images a batch (default: 8)')
    parser.add_argument('--rounds', type=int, default=15, help='timed rounds, each running every variant once (default: 15)')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default: 2)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/lipschitz_loss.json'), help='where the JSON goes')
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
    total = 0.
    for k in range(len(student) - 1):
        distance = norm(student[k], student[k + 1]) - norm(teacher[k], teacher[k + 1]).detach()
        total = total + 2.**(k + 1 - len(student)) * distance.square().mean()
    return total


def make_maps(shapes, batch, device, seed=0):
    """Smooth, rectified, correlated maps: a random deep stack applied to random images, like a network's own features."""
    generator = torch.Generator().manual_seed(seed)
    size = shapes[0][1]
    feat = F.interpolate(torch.randn(batch, 16, max(size // 4, 1), max(size // 4, 1), generator=generator), size=size, mode='bilinear')
    maps = []
    for channels, size in shapes:
        feat = F.adaptive_avg_pool2d(feat, size)
        mix = torch.randn(channels, feat.shape[1], generator=generator) / feat.shape[1]**0.5
        feat = F.relu(torch.einsum('oc,bchw->bohw', mix, feat) + 0.1 * torch.randn(batch, channels, size, size, generator=generator))
        maps.append(feat.contiguous().to(device))
    return maps


def step(norm, student, teacher):
    return torch.autograd.grad(lipschitz_loss(norm, student, teacher), student)


def peak_memory(device, function, *args):
    """MiB that the call takes from torch's allocator at its highest, beyond what was held before it."""
    if device.startswith('cuda'):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function(*args)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as trace:
        function(*args)
    events = [event for event in trace.profiler.kineto_results.events() if event.name() == '[memory]']
    held = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held) / 2**20


def timed(device, function, *args):
    if device.startswith('cuda'):
        torch.cuda.synchronize()
    start = time.perf_counter()
    function(*args)
    if device.startswith('cuda'):
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def compare(variants, shapes, batch, rounds, device):
    """Median and spread of the step's milliseconds, for each variant, in alternation; the peak memory beside it.

    ``peak_mib`` is what a step takes beyond the maps; ``extra_mib`` leaves out the gradients of the maps as well, which
    any loss on these maps returns: the larger of the forward's peak and the whole step's peak less those gradients.
    """
    student, teacher = make_maps(shapes, batch, device, 0), make_maps(shapes, batch, device, 1)
    for feat in student:
        feat.requires_grad_()
    times = {name: [] for name in variants}
    for norm in variants.values():
        step(norm, student, teacher)
    for _ in range(rounds):
        for name, norm in variants.items():
            times[name].append(timed(device, step, norm, student, teacher))
    result = {}
    for name, norm in variants.items():
        quartiles = statistics.quantiles(times[name], n=4)
        gradients = sum(feat.numel() * feat.element_size() for feat in student) / 2**20
        peak = peak_memory(device, step, norm, student, teacher)
        extra = max(peak - gradients, peak_memory(device, lipschitz_loss, norm, student, teacher))
        result[name] = dict(ms=quartiles[1], ms_low=quartiles[0], ms_high=quartiles[2],
                            peak_mib=peak, extra_mib=extra)
    return result


def accuracy(shapes, batch, device, center):
    """Worst relative error of the value against the oracle, and the cosine of the two gradients."""
    maps = make_maps(shapes, min(batch, 2), device, 2)
    ours, exact = ([feat.clone().requires_grad_() for feat in maps] for _ in range(2))
    errors = []
    for k in range(len(maps) - 1):
        value, truth = transmitting_norm(ours[k], ours[k + 1], center=center), exact_norm(exact[k], exact[k + 1], center)
        errors.append(((value - truth).abs() / truth).max().item())
        value.sum().backward()
        truth.sum().backward()
    flat = [torch.cat([feat.grad.flatten().double() for feat in feats]) for feats in (ours, exact)]
    return dict(value_error=max(errors), gradient_cosine=F.cosine_similarity(*flat, dim=0).item())


def profile(shapes, batch, device, rows=6):
    """Where our time goes: the operators with the largest share of one step."""
    student, teacher = make_maps(shapes, batch, device, 0), make_maps(shapes, batch, device, 1)
    for feat in student:
        feat.requires_grad_()
    step(transmitting_norm, student, teacher)
    with torch.profiler.profile() as trace:
        step(transmitting_norm, student, teacher)
    events = sorted(trace.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [dict(op=event.key, share=event.self_cpu_time_total / total, calls=event.count) for event in events[:rows]]


def scaling(batch, rounds, device):
    """Our milliseconds when one thing at a time is doubled."""
    base = [(64, 56), (128, 28), (256, 14), (512, 7)]
    cases = {
        'base: 64 to 512 channels, 56 to 7 px': (base, batch),
        'batch x 2': (base, 2 * batch),
        'channels x 2': ([(2 * channels, size) for channels, size in base], batch),
        'height and width x 2': ([(channels, 2 * size) for channels, size in base], batch),
    }
    return {name: compare({'ours': transmitting_norm}, *case, rounds, device)['ours'] for name, case in cases.items()}


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    console = Console()
    variants = {
        "authors' formulation": authors_norm,
        'ours': transmitting_norm,
        'ours, centred (the default)': lambda *maps: transmitting_norm(*maps, center=True),
    }
    with console.status('timing ResNet-50 maps'):
        results = compare(variants, RESNET50_AT_224, args.batch, args.rounds, args.device)
        exact = {name: accuracy(RESNET50_AT_224, args.batch, args.device, center) for name, center in (('raw', False), ('centred', True))}
        hot = profile(RESNET50_AT_224, args.batch, args.device)
        growth = scaling(args.batch, max(args.rounds // 3, 3), args.device)
    reference = results["authors' formulation"]

    table = Table(title=f"Lipschitz loss, forward + backward: ResNet-50's four maps at 224 px, batch {args.batch}, {args.threads} threads")
    for column in ('variant', 'ms (quartiles)', 'faster', 'peak MiB', 'less gradients', 'memory'):
        table.add_column(column, justify='left' if column == 'variant' else 'right')
    for name, row in results.items():
        row.update(speedup=reference['ms'] / row['ms'], memory_ratio=row['extra_mib'] / reference['extra_mib'])
        table.add_row(name, f"{row['ms']:.0f} ({row['ms_low']:.0f} to {row['ms_high']:.0f})", f"{row['speedup']:.1f}x",
                      f"{row['peak_mib']:.0f}", f"{row['extra_mib']:.0f}", f"1/{1 / row['memory_ratio']:.1f}")
    console.print(table)
    for name, row in exact.items():
        console.print(f"{name}: value within {row['value_error']:.1e} of a float64 SVD, gradient cosine {row['gradient_cosine']:.7f}")
    table = Table(title='How our cost grows')
    for column in ('case', 'ms', 'against base', 'peak MiB'):
        table.add_column(column, justify='left' if column == 'case' else 'right')
    base = next(iter(growth.values()))
    for name, row in growth.items():
        table.add_row(name, f"{row['ms']:.1f}", f"{row['ms'] / base['ms']:.2f}x", f"{row['peak_mib']:.0f}")
    console.print(table)
    console.print('Where our time goes: ' + ', '.join(f"{row['op']} {row['share']:.0%}" for row in hot))

    ours = results['ours']
    targets = {
        'at least 20x faster (12x with the profile above)': (ours['speedup'] >= 20, f"{ours['speedup']:.1f}x"),
        'at most 1/15 of the extra memory': (ours['memory_ratio'] <= 1 / 15, f"1/{1 / ours['memory_ratio']:.1f}"),
        'value within 1e-5': (exact['raw']['value_error'] <= 1e-5, f"{exact['raw']['value_error']:.1e}"),
        'gradient cosine at least 0.9999': (exact['raw']['gradient_cosine'] >= 0.9999, f"{exact['raw']['gradient_cosine']:.7f}"),
    }
    for name, (met, reached) in targets.items():
        console.print(f"{'met   ' if met else 'MISSED'}  {name}: {reached}")
    record = dict(results=results, accuracy=exact, growth=growth, profile=hot,
                  targets={name: dict(met=met, reached=reached) for name, (met, reached) in targets.items()},
                  batch=args.batch, rounds=args.rounds, threads=args.threads, device=args.device,
                  torch=torch.__version__, python=sys.version.split()[0], machine=platform.processor() or platform.machine())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=2) + '\n')
    console.print(f'Record: {args.out}')


if __name__ == '__main__':
    main()
