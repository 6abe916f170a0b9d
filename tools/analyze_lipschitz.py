"""Lipschitz report of a trained student, beside its teacher and the same student trained alone.

    python tools/analyze_lipschitz.py CONFIG CHECKPOINT
    python tools/analyze_lipschitz.py CONFIG CHECKPOINT --teacher teacher.pth --alone alone.pth --images 200

It reads test images of the config and measures, for every network: the transmitting norms of the config's taps; each layer's operator
norm; the local Lipschitz constant, sigma_max of the Jacobian, at every image, a lower bound of the global one; the product-form upper
bound where the architecture is understood; and for classifiers the accuracy under noise, FGSM and PGD. Of detectors and segmentors the
backbone is analysed. The report is printed and written as report.json, report.md and figures.
"""

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
from mmlckd.checkpoint import load_weights
from mmlckd.config import bare_model, find_file, is_distiller, read_config
from mmlckd.distillers.lipschitz_distiller import default_input_shape
from mmlckd.launching import add_override_arguments, check_folder, read_run_config, run_tool
from mmlckd.losses import LipschitzKDLoss
from mmlckd.prerequisites import check_prerequisites
from mmlckd.registry import MODELS


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a distillation, or of a plain training')
    parser.add_argument('checkpoint', help='weights of its student, or of the plain network')
    parser.add_argument('--teacher', metavar='CHECKPOINT', help='weights of the teacher (default: those that the config names)')
    parser.add_argument('--alone', metavar='CHECKPOINT', help='weights of the same student, trained alone')
    parser.add_argument('--untrained', action='store_true', help='the same student as it was before training, too')
    parser.add_argument('--images', type=int, default=64, metavar='N', help='test images to analyse (default: 64)')
    parser.add_argument('--num-iters', type=int, default=20, metavar='N', help='iterations of a Jacobian\'s norm (default: 20)')
    parser.add_argument('--noise', type=float, nargs='+', default=Options().sigmas, metavar='SD',
                        help='standard deviations of the noise, in pixel values of 0 to 255 (default: 0 8 16 32 64)')
    parser.add_argument('--epsilon', type=float, nargs='+', default=Options().epsilons, metavar='E',
                        help='radii of FGSM and PGD, in pixel values (default: 1 2 4 8)')
    parser.add_argument('--seed', type=int, default=0, help='seed of noise and random starts (default: 0)')
    parser.add_argument('--device', type=device, default='cuda' if torch.cuda.is_available() else 'cpu',
                        help='cpu, or cuda (default where there is one)')
    parser.add_argument('--out', type=Path, help='folder of the report (default: lipschitz_report beside the checkpoint)')
    add_override_arguments(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def device(name):
    """A device that is there, for argparse."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f'{name!r} is no device of this machine') from error


def networks_of(config, args):
    """Name to model dict, checkpoint and taps of every network to analyse."""
    distiller = is_distiller(config.model)
    taps = {}
    if distiller:
        losses = [loss for loss in config.model.losses.values() if MODELS.get(loss.type) is LipschitzKDLoss]
        spec = next((loss.taps for loss in losses if loss.get('taps')), config.model.get('taps'))
        taps = spec if isinstance(spec, dict) else dict(student=spec, teacher=spec)
    networks = {'student' if distiller else 'network': (bare_model(config), args.checkpoint, taps.get('student'))}
    if args.untrained:
        networks['untrained'] = (bare_model(config), None, taps.get('student'))
    if args.alone:
        networks['student alone'] = (bare_model(config), args.alone, taps.get('student'))
    teacher = config.model.teacher if distiller else None
    if teacher is not None and 'config' in teacher and (args.teacher or teacher.get('checkpoint')):
        source = args.teacher or teacher.checkpoint
        networks['teacher'] = (bare_model(read_config(teacher.config)), str(find_file(source) or source), taps.get('teacher'))
    return networks


def first_images(loader, count):
    """Batches of the first ``count`` images."""
    batches = []
    for batch in loader:
        batches.append({key: value[:count] for key, value in batch.items()})
        count -= len(batches[-1]['inputs'])
        if not count:
            break
    return batches


def summary(results):
    """Rows of the table: a quantity, and its value for every network."""
    def row(name, value):
        return [name, *(value(result) for result in results.values())]

    def spread(values):
        low, high = torch.tensor(values).quantile(torch.tensor([0.05, 0.95])).tolist()
        return f'{sum(values) / len(values):.3g} ({low:.3g} to {high:.3g})'

    pairs = max(len(result.get('pairs', ())) for result in results.values())
    return [
        row('parameters', lambda result: f"{result['parameters']:,}"),
        *(row(f'transmitting norm, pair {k}', lambda result, k=k: spread(result['pairs'][k])) for k in range(pairs)),
        row('local constant', lambda result: spread(result['local'])),
        row('its peak', lambda result: f"{max(result['local']):.3g}, image {result['local'].index(max(result['local']))}"),
        row('product bound', lambda result: 'none' if result['bound'] is None else f"{result['bound']:.3g}"),
        row('largest operator norm', lambda result: f"{max(layer['operator_norm'] for layer in result['layers'].values()):.3g}")]


def robustness_rows(results, args):
    rows = []
    for kind, title, strengths in (('noise', 'noise', args.noise), ('fgsm', 'FGSM', args.epsilon), ('pgd', 'PGD', args.epsilon)):
        for i, strength in enumerate(strengths):
            rows.append([f'accuracy %, {title} {strength:g}', *(f"{result['robustness'][kind][i]:.2f}" for result in results.values())])
    return rows


def markdown(rows, header, args, results):
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    notes = [f'{name}: no upper bound, for {", ".join(result["unbounded"])}.' for name, result in results.items() if result['unbounded']]
    text = [f'# Lipschitz report of {args.config}', '', *(f'| {" | ".join(line)} |' for line in lines), '',
            'Mean (5 % to 95 % quantile) over the images. Local constants: sigma_max of the Jacobian of the '
            f'{next(iter(results.values()))["of"]}, in output units per unit of normalised input; each is a lower bound of the global '
            'constant, the product an upper bound. Noise, FGSM and PGD in pixel values of 0 to 255.', *notes]
    return '\n'.join(text) + '\n'


def main(args):
    for name in ('images', 'num_iters'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name.replace("_", "-")} is {getattr(args, name)}: at least 1 is needed')
    out = args.out or Path(args.checkpoint).parent / 'lipschitz_report'
    check_folder('--out', out)
    config, console = read_run_config(args), Console()
    check_prerequisites(config, ['test_dataloader'])
    init_default_scope(config.default_scope)
    __import__(f'{config.default_scope}.models')
    MMLogger.get_instance('analysis', log_level='ERROR')
    networks = networks_of(config, args)
    batches = first_images(Runner.build_dataloader(config.test_dataloader, seed=args.seed), args.images)
    options = Options(args.num_iters, args.noise, args.epsilon, args.seed,
                      lambda items, title: track(items, description=title, console=console))
    results = {}
    for name, (model, checkpoint, taps) in networks.items():
        console.print(f'[bold]{name}[/bold] {checkpoint or ""}', soft_wrap=True)
        model = MODELS.build(model).to(args.device)
        if checkpoint is None:
            set_random_seed(args.seed)
            model.init_weights()
        else:
            load_weights(model, checkpoint)
        results[name] = dict(checkpoint=checkpoint, **analyze(model, batches, taps, default_input_shape(model), options))

    header, rows = ['', *results], summary(results)
    rows += robustness_rows(results, args) if all('robustness' in result for result in results.values()) else []
    table = Table(title=f'{len(next(iter(results.values()))["local"])} test images; mean (5 to 95 %)')
    for column in header:
        table.add_column(column, justify='right' if column else 'left')
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for name, result in results.items():
        if result['unbounded']:
            console.print(f'{name}: no upper bound, for {", ".join(result["unbounded"])}', soft_wrap=True)

    out.mkdir(parents=True, exist_ok=True)
    record = dict(config=args.config, seed=args.seed, torch=torch.__version__, noise=list(args.noise), epsilon=list(args.epsilon),
                  networks=results)
    (out / 'report.json').write_text(json.dumps(record, indent=1) + '\n')
    (out / 'report.md').write_text(markdown(rows, header, args, results))
    figures = plot_report(record, out)
    for path in (out / 'report.md', out / 'report.json', *figures):
        console.print(f'written: [bold]{path}[/bold]', soft_wrap=True)


if __name__ == '__main__':
    run_tool(main, make_parser())
