"""Write the bare student of a training checkpoint: no connectors, no optimizer, and OpenMMLab's SHA-256 suffix.

python tools/export_student.py work_dirs/mnist5k_wrn16-2_to_wrn10-1/epoch_12.pth student.pth
# writes student-<first 8 digits>.pth, which loads into the student's own config with strict=True
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections import OrderedDict
from pathlib import Path

import torch

from mmlckd.checkpoints import AtomicBackend, read_checkpoint, weights_of
from mmlckd.cli import add_trust_argument, check_folder, run_tool


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='checkpoint of a training run')
    parser.add_argument('out', type=Path, help='file to write; the suffix is put before its ending')
    add_trust_argument(parser)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def main(args):
    check_folder('out', args.out.parent)
    content = read_checkpoint(args.checkpoint)
    if 'state_dict' not in content:
        raise ValueError(f'checkpoint {args.checkpoint!r} has no state_dict: give a checkpoint that training wrote')
    weights = OrderedDict(
        (key, value) for key, value in weights_of(content, args.checkpoint).items() if not key.startswith('distiller.')
    )
    meta = {key: value for key, value in content.get('meta', {}).items() if key in ('dataset_meta', 'mmengine_version')}
    buffer = io.BytesIO()
    torch.save(dict(state_dict=weights, meta=meta), buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:8]
    target = args.out.with_name(f'{args.out.stem}-{digest}{args.out.suffix or ".pth"}')
    AtomicBackend().put(buffer.getvalue(), target)
    print(f'{target}: {len(weights)} tensors, {target.stat().st_size / 2**20:.2f} MiB')


if __name__ == '__main__':
    run_tool(main, make_parser())
