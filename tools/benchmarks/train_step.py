"""Cost of a distillation step of the recipes, beside the student alone and the floor, in one process.

The floor is what distillation cannot avoid: the student's own training step, and the teacher's forward to its deepest
tap without gradient. A reading of SpectralNormHook is timed too, with the operator norm of every layer of the student, as a share of
the training between two readings at the default interval. All variants of a workload take turns in every round, so that a noisy machine
is noisy for all; medians are printed, with the spread of the ratio to the floor.

    python tools/benchmarks/train_step.py
    python tools/benchmarks/train_step.py --workloads cifar_c --rounds 5
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmlckd.analysis import LayerNorms
from mmlckd.config import read_config
from mmlckd.hooks import SpectralNormHook
from mmlckd.hooks.spectral_norm_hook import read_norms
from mmlckd.launching import run_tool
from mmlckd.registry import MODELS

# recipe, image size and images a batch on the CPU
WORKLOADS = dict(
    demo_classification=('configs/demo/mnist5k_wrn16-2_to_wrn10-1.py', 28, 32),
    demo_detection=('configs/demo/digits_faster_rcnn_r18x32_to_r18x16.py', 128, 4),
    cifar_c=('configs/lckd/cifar100_wrn28-4_to_wrn16-2.py', 32, 64),
    cifar_e=('configs/lckd/cifar100_pyramidnet200_to_wrn28-4.py', 32, 16),
    imagenet_resnet=('configs/lckd/imagenet_resnet152_to_resnet50.py', 224, 2),
)


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--workloads', nargs='+', choices=WORKLOADS, default=list(WORKLOADS), help='which pairs (default: all)')
    parser.add_argument('--rounds', type=int, default=15, help='timed rounds, each running every variant once (default: 15)')
    parser.add_argument('--batch', type=int, help='images a batch (default: one that suits a CPU)')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default: 2)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/train_step.json'), help='where the JSON goes')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def build(path, device):
    config = read_config(path)
    init_default_scope(config.default_scope)
    __import__(f'{config.default_scope}.models')
    config.model.teacher.checkpoint = None  # weights do not matter to its cost
    model = MODELS.build(dict(config.model, data_preprocessor=config.get('data_preprocessor')))
    model.init_weights()
    return model.to(device).train()


def batch_of(model, size, batch, device):
    """Random images and labels, as the model's preprocessor makes them for training."""
    if hasattr(model, 'roi_head'):
        from mmdet.testing import demo_mm_inputs
        inputs = demo_mm_inputs(batch, [[3, size, size]] * batch, num_items=[4] * batch, num_classes=10, device=device)
        return model.data_preprocessor(inputs, True)
    from mmpretrain.structures import DataSample
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8)
    samples = [DataSample().set_gt_label(int(label)) for label in torch.randint(0, 10, (batch,), generator=generator)]
    return model.data_preprocessor(dict(inputs=list(images.to(device)), data_samples=samples), True)


def reading(model, data):
    """A function that does what a reading of SpectralNormHook does, with all layers of the student."""
    norms = LayerNorms(model, '')
    with norms.watch():
        model.student(data['inputs'], data['data_samples'], mode='loss')

    def read():
        read_norms(model)
        norms.measure(num_iters=2).tolist()

    return read


def variants(model, data):
    """Name to a function that does one optimizer step of it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step(forward, extra=None):
        def run():
            if extra is not None:
                extra()
            loss, _ = model.parse_losses(forward(data['inputs'], data['data_samples'], mode='loss'))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return run

    def without(name):
        def forward(*args, **kwargs):
            entries, model.entries = model.entries, [entry for entry in model.entries if entry.name != name]
            try:
                return model(*args, **kwargs)
            finally:
                model.entries = entries
        return forward

    def teacher():
        model.teacher(data['inputs'], data['data_samples'])

    return {'student alone': step(model.student), 'floor': step(model.student, teacher), 'ours': step(model),
            **{f'ours without {entry.name}': step(without(entry.name)) for entry in model.entries}}


def seconds(function, device):
    if device.startswith('cuda'):
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.startswith('cuda'):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(name, args, console):
    path, size, batch = WORKLOADS[name]
    model = build(path, args.device)
    data = batch_of(model, size, args.batch or batch, args.device)
    functions = variants(model, data)
    functions['ours']()  # the reading wants its norms
    functions['a reading of the hook'] = reading(model, data)
    for function in functions.values():
        function()
    rounds = [{key: seconds(function, args.device) for key, function in functions.items()}
              for _ in track(range(args.rounds), description=name, console=console)]
    rows = {}
    for key in functions:
        ratios = sorted(times[key] / times['floor'] for times in rounds)
        rows[key] = dict(ms=1000 * statistics.median(times[key] for times in rounds), ratio=statistics.median(ratios),
                         quartiles=[ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]])
    read = rows.pop('a reading of the hook')
    interval = SpectralNormHook().interval
    return dict(config=path, batch=args.batch or batch, size=size, variants=rows,
                hook=dict(ms=read['ms'], interval=interval, share=read['ms'] / (interval * rows['ours']['ms'])))


def main(args):
    torch.set_num_threads(args.threads)
    MMLogger.get_instance('benchmark', log_level='ERROR')  # what each weight was drawn from is not of interest here
    console = Console()
    record = dict(torch=torch.__version__, machine=platform.machine(), device=args.device, threads=args.threads, rounds=args.rounds,
                  workloads={name: measure(name, args, console) for name in args.workloads})
    for name, workload in record['workloads'].items():
        table = Table(title=f"{name}: {workload['config']}, batch {workload['batch']}, {workload['size']} px")
        for column in ('', 'ms', 'of the floor', 'middle half'):
            table.add_column(column, justify='right' if column else 'left')
        for key, row in workload['variants'].items():
            table.add_row(key, f"{row['ms']:.0f}", f"{row['ratio']:.3f}", '{:.3f} to {:.3f}'.format(*row['quartiles']))
        console.print(table)
        hook = workload['hook']
        console.print(f"a reading of SpectralNormHook, every layer: {hook['ms']:.0f} ms, {hook['share']:.2%} of training at interval "
                      f"{hook['interval']} (target: at most 2 %)\n")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + '\n')
    console.print(f'this table as data: [bold]{args.out}[/bold]')


if __name__ == '__main__':
    run_tool(main, make_parser())
