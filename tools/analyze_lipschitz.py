"""Lipschitz report of a trained student, beside its teacher and the same student trained otherwise.

    python tools/analyze_lipschitz.py CONFIG CHECKPOINT
    python tools/analyze_lipschitz.py CONFIG CHECKPOINT --teacher teacher.pth --alone alone.pth --images 200
    python tools/analyze_lipschitz.py CONFIG CHECKPOINT --compare KD=kd.pth 'KD + OFD=ofd.pth'

It draws test images of the config and measures for every network:

- the transmitting norms of the config's taps, centred or raw as its Lipschitz loss takes them, without connectors;
- each layer's operator norm;
- the local Lipschitz constant at every image (sigma_max of the Jacobian), a lower bound of the global one;
- the product-form upper bound, where the architecture is understood;
- for classifiers the accuracy under noise, FGSM and PGD.

Both constants are in output units per pixel value, 0 to 255, whatever normalises the images. For detectors and
segmentors the backbone is analysed. The report is printed and written as report.json, report.md and figures;
docs/lipschitz_report.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmlckd.analysis import Options, analyze, plot_report, report_gaps, report_page, report_table
from mmlckd.analysis.networks import compared_maps, draw_images, load_networks
from mmlckd.cli import add_override_arguments, check_folder, check_prerequisites, enter_scope, read_run_config, run_tool
from mmlckd.config import is_distiller
from mmlckd.taps import default_input_shape


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('config', help='config of a distillation, or of a plain training')
    add('checkpoint', help='weights of its student, or of the plain network')
    add('--teacher', metavar='CHECKPOINT', help='weights of the teacher (default: those that the config names)')
    add('--alone', metavar='CHECKPOINT', help='weights of the same student, trained alone')
    add(
        '--compare',
        type=named,
        nargs='+',
        default=[],
        metavar='NAME=CHECKPOINT',
        help='weights of the same student, trained otherwise, and the names that they have in the report',
    )
    add('--untrained', action='store_true', help='the same student as it was before training, too')
    add('--images', type=int, default=64, metavar='N', help='test images to draw (default: 64)')
    add('--num-iters', type=int, default=20, metavar='N', help="iterations of a Jacobian's norm (default: 20)")
    add(
        '--noise',
        type=float,
        nargs='+',
        default=Options().sigmas,
        metavar='SD',
        help='standard deviations of the noise, in pixel values of 0 to 255 (default: 0 8 16 32 64)',
    )
    add(
        '--epsilon',
        type=float,
        nargs='+',
        default=Options().epsilons,
        metavar='E',
        help='radii of FGSM and PGD, in pixel values (default: 1 2 4 8)',
    )
    add('--seed', type=int, default=0, help='seed of the images, of noise and of random starts (default: 0)')
    default_device = 'cuda' if torch.cuda.is_available() else 'cpu'
    add('--device', type=device, default=default_device, help='cpu, or cuda (default where there is one)')
    add('--out', type=Path, help='folder of the report (default: lipschitz_report beside the checkpoint)')
    add_override_arguments(parser)
    add('--debug', action='store_true', help='show the traceback of an error')
    return parser


def named(text):
    """A name and a checkpoint, for argparse."""
    name, sign, checkpoint = text.partition('=')
    if not (name and sign and checkpoint):
        raise argparse.ArgumentTypeError(f'{text!r} is not of the form NAME=CHECKPOINT')
    return name, checkpoint


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
    others(args)
    out = args.out or Path(args.checkpoint).parent / 'lipschitz_report'
    check_folder('--out', out)
    return out


def others(args):
    """The checkpoints that are compared, by name."""
    named = ([('student alone', args.alone)] if args.alone else []) + args.compare
    names = [name for name, _ in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f'--compare has the name {twice!r} twice: give each network a name of its own')
    return dict(named)


def analyze_all(args, config, networks, batches, console):
    """The result of each network by name, with a progress bar for what takes long."""

    def progress(items, title):
        return track(items, description=title, console=console)

    center = compared_maps(config).center
    options = Options(args.num_iters, center, args.noise, args.epsilon, args.seed, progress)
    results = {}
    for name, (model, checkpoint, taps) in networks.items():
        console.print(f'[bold]{name}[/bold] {checkpoint or ""}', soft_wrap=True)
        model.to(args.device)
        result = analyze(model, batches, taps, default_input_shape(model), options)
        results[name] = dict(checkpoint=checkpoint, **result)
    return results


def show(record, console):
    header, *rows = report_table(record)
    table = Table(title=f'{len(record["images"])} test images; mean (5 to 95 %)')
    for column in header:
        table.add_column(column, justify='right' if column else 'left')
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in report_gaps(record):
        console.print(line, soft_wrap=True)


def write(record, out, console):
    out.mkdir(parents=True, exist_ok=True)
    (out / 'report.json').write_text(json.dumps(record, indent=1) + '\n')
    (out / 'report.md').write_text(report_page(record))
    figures = plot_report(record, out)
    for path in (out / 'report.md', out / 'report.json', *figures):
        console.print(f'written: [bold]{path}[/bold]', soft_wrap=True)


def main(args):
    out = check(args)
    config = read_run_config(args)
    console = Console(width=None if sys.stdout.isatty() else 160)  # in a file a table is whole
    check_prerequisites(config, ['test_dataloader'])
    enter_scope(config)
    MMLogger.get_instance('analysis', log_level='ERROR')
    networks = load_networks(config, args.checkpoint, others(args), args.untrained, args.teacher, args.seed)
    if is_distiller(config.model) and 'teacher' not in networks:
        console.print('the teacher is left out: the config names no checkpoint of it, and --teacher is not given')
    loader = Runner.build_dataloader(config.test_dataloader, seed=args.seed)
    images, batches = draw_images(loader, args.images, args.seed)
    results = analyze_all(args, config, networks, batches, console)
    record = dict(
        config=args.config,
        seed=args.seed,
        torch=torch.__version__,
        images=images,
        center=compared_maps(config).center,
        noise=list(args.noise),
        epsilon=list(args.epsilon),
        networks=results,
    )
    show(record, console)
    write(record, out, console)


if __name__ == '__main__':
    run_tool(main, make_parser())
