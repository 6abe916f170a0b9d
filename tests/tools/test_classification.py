"""Classification recipes, unchanged, on tiny sets in the true formats of CIFAR-100 and ImageNet, of real digits in
colour.
"""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from conftest import ROOT, run, save_untrained
from mmengine.registry import init_default_scope
from PIL import Image

from mmlckd.config import is_distiller, read_config

# one recipe of each family, and each way of training around it
CIFAR = [
    'configs/lckd/cifar100_wrn28-4_to_wrn16-2.py',
    'configs/lckd/cifar100_wrn28-4_to_resnet56_scale_free.py',
    'configs/lckd/cifar100_pyramidnet200_to_pyramidnet110.py',
    'configs/baselines/cifar100_wrn28-4_to_wrn16-4_kd.py',
    'configs/teachers/cifar100_pyramidnet200.py',
]
IMAGENET = ['configs/lckd/imagenet_resnet152_to_resnet50.py', 'configs/lckd/imagenet_resnet50_to_mobilenet.py']


@pytest.fixture(scope='module')
def digits(mnist):
    """Sixteen real digits, 32 px, each in a colour of its own, and their classes."""
    rng = np.random.default_rng(0)
    lines = [line.split() for line in (mnist / 'meta/train_100.txt').read_text().splitlines()[:16]]
    images = np.stack(
        [
            np.pad(np.asarray(Image.open(mnist / name).convert('L')), 2)[..., None] * rng.uniform(0.3, 1, 3)
            for name, _ in lines
        ]
    )
    return images.astype(np.uint8), [int(label) for _, label in lines]


@pytest.fixture(scope='module')
def cifar(digits, tmp_path_factory):
    """The pickles of the python version: rows of 3072 bytes, channel after channel."""
    root = tmp_path_factory.mktemp('cifar100')
    folder = root / 'cifar-100-python'
    folder.mkdir()
    images, labels = digits
    for name in ('train', 'test'):
        content = dict(
            data=images.transpose(0, 3, 1, 2).reshape(len(images), -1),
            fine_labels=labels,
            coarse_labels=[label // 5 for label in labels],
            filenames=[f'{i}.png' for i in range(len(images))],
            batch_label=f'{name}ing batch 1 of 1',
        )
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / 'meta').write_bytes(
        pickle.dumps(dict(fine_label_names=[f'class {i}' for i in range(100)], coarse_label_names=[]), protocol=2)
    )
    return root


@pytest.fixture(scope='module')
def imagenet(digits, tmp_path_factory):
    """A folder for each of the 1,000 classes, with one image in training and one in validation."""
    root = tmp_path_factory.mktemp('imagenet')
    pictures = []
    for i, image in enumerate(digits[0]):
        pictures.append(root / f'{i}.JPEG')
        Image.fromarray(image).resize((72, 72)).save(pictures[-1])
    for split in ('train', 'val'):
        for number in range(1000):
            folder = root / split / f'n{number:08d}'
            folder.mkdir(parents=True)
            (folder / f'{folder.name}_0.JPEG').symlink_to(pictures[number % len(pictures)])
    return root


def train(path, root, folder, *more):
    """An epoch of two iterations and a validation; returns the logged steps and the metrics."""
    config = read_config(path)
    options = ['train_cfg.max_epochs=1', 'default_hooks.logger.interval=1', 'train_dataloader.batch_size=2']
    for name in ('train', 'val'):
        loader = f'{name}_dataloader'
        options += [
            f'{loader}.dataset.data_root={root}',
            f'{loader}.dataset.indices=4',
            f'{loader}.num_workers=0',
            f'{loader}.persistent_workers=False',
        ]
        options += [f'{loader}.dataset.check_md5=False'] if 'CIFAR' in config[loader].dataset.type else []
    if 'imagenet' in path:  # 64 px
        options += [
            'train_dataloader.dataset.pipeline.1.scale=64',
            'val_dataloader.dataset.pipeline.1.scale=64',
            'val_dataloader.dataset.pipeline.2.crop_size=64',
        ]
    if is_distiller(config.model):
        options.append(
            f'model.teacher.checkpoint={save_untrained(config.model.teacher.config, folder / "teacher.pth")}'
        )
    result = run('tools/train.py', path, '--work-dir', folder, '--cfg-options', *options, *more)
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [
        json.loads(line) for file in folder.glob('*/vis_data/scalars.json') for line in file.read_text().splitlines()
    ]
    return [line for line in lines if 'loss' in line], [line for line in lines if 'loss' not in line]


@pytest.mark.parametrize('path', [*CIFAR, *IMAGENET])
def test_an_epoch_of_each_family(path, cifar, imagenet, tmp_path):
    steps, (metrics,) = train(path, imagenet if 'imagenet' in path else cifar, tmp_path)
    assert len(steps) == 2 and {'accuracy/top1', 'accuracy/top5'} <= set(metrics)
    expected = {'configs/lckd': ['ofd', 'lipschitz'], 'configs/baselines': ['kd'], 'configs/teachers': []}[
        path.rpartition('/')[0]
    ]
    assert all(step[f'distiller.loss_{name}'] > 0 for step in steps for name in expected)
    assert all(np.isfinite(step['loss']) for step in steps)


def test_files_of_other_content_are_refused_while_the_check_is_on(cifar):
    from mmlckd.registry import DATASETS

    init_default_scope('mmpretrain')
    dataset = dict(type='mmlckd.CIFAR100', data_root=str(cifar), split='test', pipeline=[], download=False)
    with pytest.raises(RuntimeError, match='Cannot find CIFAR100'):
        DATASETS.build(dataset)
    assert len(DATASETS.build(dict(dataset, check_md5=False))) == 16


def test_without_cifar_one_sentence_says_what_to_download(tmp_path):
    result = run(ROOT / 'tools/train.py', 'configs/lckd/cifar100_wrn28-4_to_wrn16-2.py', cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == (
        "error: train_dataloader.dataset.data_root is 'data/cifar100', which does not exist: "
        'make it with `mkdir -p data/cifar100 && '
        'curl -L https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz | tar xz -C data/cifar100`'
    )
    assert not list(tmp_path.iterdir())
