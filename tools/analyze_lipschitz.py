"""Lipschitz report of a trained student, beside its teacher and the same student trained alone.

    python tools/analyze_lipschitz.py CONFIG CHECKPOINT
    python tools/analyze_lipschitz.py CONFIG CHECKPOINT --teacher teacher.pth --alone alone.pth --images 200

It draws test images of the config and measures, for every network: the transmitting norms of the config's taps, centred
or raw as its Lipschitz loss takes them, without connectors; each layer's operator norm; the local Lipschitz constant, sigma_max of the
Jacobian, at every image, a lower bound of the global one; the product-form upper bound where the architecture is understood; and for
classifiers the accuracy under noise, FGSM and PGD. Both constants are in output units per pixel value, 0 to 255, whatever normalises the
images. Of detectors and segmentors the backbone is analysed. The report is printed and written as report.json, report.md and figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmlckd.analysis import Options, analyze, plot_report
from mmlckd.checkpoints import load_weights
from mmlckd.cli import add_override_arguments, check_folder, check_prerequisites, read_run_config, run_tool
from mmlckd.config import bare_model, is_distiller
from mmlckd.distillers.frozen_teacher import FrozenTeacher
from mmlckd.losses import LipschitzKDLoss
from mmlckd.registry import MODELS
from mmlckd.taps import default_input_shape


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a distillation, or of a plain training')
    parser.add_argument('checkpoint', help='weights of its student, or of the plain network')
    parser.add_argument(
        '--teacher', metavar='CHECKPOINT', help='weights of the teacher (default: those that the config names)'
    )
    parser.add_argument('--alone', metavar='CHECKPOINT', help='weights of the same student, trained alone')
    parser.add_argument('--untrained', action='store_true', help='the same student as it was before training, too')
    parser.add_argument('--images', type=int, default=64, metavar='N', help='test images to draw (default: 64)')
    parser.add_argument(
        '--num-iters', type=int, default=20, metavar='N', help="iterations of a Jacobian's norm (default: 20)"
    )
    parser.add_argument(
        '--noise',
        type=float,
        nargs='+',
        default=Options().sigmas,
        metavar='SD',
        help='standard deviations of the noise, in pixel values of 0 to 255 (default: 0 8 16 32 64)',
    )
    parser.add_argument(
        '--epsilon',
        type=float,
        nargs='+',
        default=Options().epsilons,
        metavar='E',
        help='radii of FGSM and PGD, in pixel values (default: 1 2 4 8)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of the images, of noise and of random starts (default: 0)'
    )
    parser.add_argument(
        '--device',
        type=device,
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='cpu, or cuda (default where there is one)',
    )
    parser.add_argument(
        '--out', type=Path, help='folder of the report (default: lipschitz_report beside the checkpoint)'
    )
    add_override_arguments(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def device(name):
    """A device that is there, for argparse."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise argparse.ArgumentTypeError(f'{name!r} is no device of this machine') from error


def check(args):
    """Everything that can be told wrong from the arguments alone; the folder of the report."""
    for name in ('images', 'num_iters'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name.replace("_", "-")} is {getattr(args, name)}: at least 1 is needed')
    for name in ('noise', 'epsilon'):
        if min(getattr(args, name)) < 0:
            raise ValueError(f'--{name} has {min(getattr(args, name)):g}: strengths are pixel values from 0 on')
    out = args.out or Path(args.checkpoint).parent / 'lipschitz_report'
    check_folder('--out', out)
    return out


def transmitting_norms_of(config):
    """Taps of the student and of the teacher, and whether the norms are of centred maps, as in the config's Lipschitz loss."""
    if not is_distiller(config.model):
        return None, None, None
    losses = [loss for loss in config.model.losses.values() if MODELS.get(loss.type) is LipschitzKDLoss] or [
        dict(type=LipschitzKDLoss)
    ]
    loss = MODELS.build(
        {key: value for key, value in losses[0].items() if key not in ('taps', 'connectors', 'max_share', 'teacher')}
    )
    taps = losses[0].get('taps') or config.model.get('taps')
    return (taps['student'], taps['teacher'], loss.center) if isinstance(taps, dict) else (taps, taps, loss.center)


def teacher_of(config):
    """The spec of the teacher; of several, the one that the Lipschitz loss names, or else the first."""
    teachers = config.model.get('teachers')
    if teachers is None:
        return config.model.teacher
    named = [loss.teacher for loss in config.model.losses.values() if MODELS.get(loss.type) is LipschitzKDLoss]
    return teachers[named[0]] if named else next(iter(teachers.values()))


def load_networks(config, args, student_taps, teacher_taps):
    """Name to network, the file its weights are from, and its taps: all are loaded before the first is analysed."""
    networks = {}

    def add(name, checkpoint):
        set_random_seed(args.seed)
        model = MODELS.build(bare_model(config))
        if checkpoint is None:
            model.init_weights()
        else:
            load_weights(model, checkpoint)
        networks[name] = model, checkpoint, student_taps

    add('student' if is_distiller(config.model) else 'network', args.checkpoint)
    if args.untrained:
        add('untrained', None)
    if args.alone:
        add('student alone', args.alone)
    if is_distiller(config.model):
        spec = teacher_of(config)
        teacher = FrozenTeacher(dict(spec, norm_stats='running') if isinstance(spec, dict) else spec)
        teacher.checkpoint = args.teacher or teacher.checkpoint
        if teacher.checkpoint:
            teacher.load()
            networks['teacher'] = teacher.model, teacher.checkpoint, teacher_taps
    elif args.teacher:
        raise ValueError(
            f'--teacher is {args.teacher!r} and {args.config} has no teacher: give a config that distils, or analyse that '
            'network with its own config'
        )
    return networks


def draw_images(loader, count, seed):
    """Indices of ``count`` images of the data set, and their batches: drawn, since the first are often of one class."""
    dataset = loader.dataset
    indices = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:count].sort().values.tolist()
    return indices, [
        loader.collate_fn([dataset[i] for i in indices[k : k + loader.batch_size]])
        for k in range(0, len(indices), loader.batch_size)
    ]


def summary(results, images):
    """Rows of the table: a quantity, and its value for every network."""

    def row(name, value):
        return [name, *(value(result) for result in results.values())]

    def spread(values):
        if values is None:
            return 'none'
        low, high = torch.tensor(values).quantile(torch.tensor([0.05, 0.95])).tolist()
        return f'{sum(values) / len(values):.3g} ({low:.3g} to {high:.3g})'

    def peak(values):
        return 'none' if values is None else f'{max(values):.3g}, image {images[values.index(max(values))]}'

    pairs = max(len(result.get('pairs', ())) for result in results.values())
    return [
        row('parameters', lambda result: f'{result["parameters"]:,}'),
        *(row(f'transmitting norm, pair {k}', lambda result, k=k: spread(result['pairs'][k])) for k in range(pairs)),
        row('local constant', lambda result: spread(result['local'])),
        row('its peak', lambda result: peak(result['local'])),
        row('product bound', lambda result: 'none' if result['bound'] is None else f'{result["bound"]:.3g}'),
        row(
            'largest operator norm',
            lambda result: f'{max(layer["operator_norm"] for layer in result["layers"].values()):.3g}',
        ),
    ]


def robustness_rows(results, args):
    rows = []
    for kind, title, strengths in (
        ('noise', 'noise', args.noise),
        ('fgsm', 'FGSM', args.epsilon),
        ('pgd', 'PGD', args.epsilon),
    ):
        for i, strength in enumerate(strengths):
            rows.append(
                [
                    f'accuracy %, {title} {strength:g}',
                    *(f'{result["robustness"][kind][i]:.2f}' for result in results.values()),
                ]
            )
    return rows


def gaps(results):
    """A sentence for each number that a network lacks."""
    return [
        *(
            f'{name}: no local constant, for {result["no_local"]}'
            for name, result in results.items()
            if result['no_local']
        ),
        *(
            f'{name}: no upper bound, for {", ".join(result["unbounded"])}.'
            for name, result in results.items()
            if result['unbounded']
        ),
    ]


def markdown(rows, header, args, record):
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    results = record['networks']
    first = next(iter(results.values()))
    text = [
        f'# Lipschitz report of {args.config}',
        '',
        *(f'| {" | ".join(line)} |' for line in lines),
        '',
        f'Mean (5 % to 95 % quantile) over {len(record["images"])} test images, drawn by seed {args.seed}. Local constants: sigma_max '
        f'of the Jacobian of the {first["of"]}, in output units per pixel value (0 to 255); each is a lower bound of the global one. '
        f'The product is an upper bound, in the same units, for images of {" x ".join(map(str, first["size"]))} px; it is made of '
        'operator norms that approach from below, each to about 1e-4 of its value. Noise, FGSM and PGD in pixel values.',
    ]
    if 'taps' in first:
        text += [
            '',
            f'Transmitting norms are of {"centred" if record["center"] else "raw"} maps, before any connectors. Pair k goes from '
            'a tap to the next:',
            '',
            *(f'- {name}: `{"`, `".join(result["taps"])}`' for name, result in results.items()),
        ]
    missing = gaps(results)
    return '\n'.join([*text, *([''] if missing else []), *missing]) + '\n'


def main(args):
    out = check(args)
    config, console = read_run_config(args), Console()
    check_prerequisites(config, ['test_dataloader'])
    init_default_scope(config.default_scope)
    __import__(f'{config.default_scope}.models')
    MMLogger.get_instance('analysis', log_level='ERROR')
    *taps, center = transmitting_norms_of(config)
    networks = load_networks(config, args, *taps)
    if is_distiller(config.model) and 'teacher' not in networks:
        console.print('the teacher is left out: the config names no checkpoint of it, and --teacher is not given')
    images, batches = draw_images(
        Runner.build_dataloader(config.test_dataloader, seed=args.seed), args.images, args.seed
    )
    options = Options(
        args.num_iters,
        center,
        args.noise,
        args.epsilon,
        args.seed,
        lambda items, title: track(items, description=title, console=console),
    )
    results = {}
    for name, (model, checkpoint, taps) in networks.items():
        console.print(f'[bold]{name}[/bold] {checkpoint or ""}', soft_wrap=True)
        model.to(args.device)
        results[name] = dict(
            checkpoint=checkpoint, **analyze(model, batches, taps, default_input_shape(model), options)
        )

    header, rows = ['', *results], summary(results, images)
    rows += robustness_rows(results, args) if all('robustness' in result for result in results.values()) else []
    table = Table(title=f'{len(images)} test images; mean (5 to 95 %)')
    for column in header:
        table.add_column(column, justify='right' if column else 'left')
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in gaps(results):
        console.print(line, soft_wrap=True)

    out.mkdir(parents=True, exist_ok=True)
    record = dict(
        config=args.config,
        seed=args.seed,
        torch=torch.__version__,
        images=images,
        center=center,
        noise=list(args.noise),
        epsilon=list(args.epsilon),
        networks=results,
    )
    (out / 'report.json').write_text(json.dumps(record, indent=1) + '\n')
    (out / 'report.md').write_text(markdown(rows, header, args, record))
    figures = plot_report(record, out)
    for path in (out / 'report.md', out / 'report.json', *figures):
        console.print(f'written: [bold]{path}[/bold]', soft_wrap=True)


if __name__ == '__main__':
    run_tool(main, make_parser())
