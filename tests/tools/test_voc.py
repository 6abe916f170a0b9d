"""Detection and segmentation recipes, unchanged, on a devkit of digit scenes; their checkpoints in stock mmdet and
mmseg.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run, save_untrained, stock_tool, total_and_parts
from install_mmcv import is_upstream

from mmlckd.checkpoints import read_checkpoint
from mmlckd.cli import leaf_datasets
from mmlckd.config import bare_model, is_distiller, read_config

DIGITS = 'zero,one,two,three,four,five,six,seven,eight,nine'
DETECTION, SEGMENTATION = (
    'configs/demo/digits_faster_rcnn_r18x32_to_r18x16.py',
    'configs/demo/digits_deeplabv3plus_r18x32_to_r18x16.py',
)


def loaders(path, devkit):
    """Overrides that point every data set of a config at the devkit, at a small size and without workers."""
    config, options = read_config(path), []
    for name in ('train', 'val', 'test'):
        options += [f'{name}_dataloader.num_workers=0', f'{name}_dataloader.persistent_workers=False']
        for field, dataset in leaf_datasets(config[f'{name}_dataloader'].dataset, f'{name}_dataloader.dataset'):
            options.append(f'{field}.data_root={devkit}/{"" if config.default_scope == "mmdet" else "VOC2012"}')
            if name == 'train':
                options.append(f'{field}.indices=4')  # a handful
            if config.default_scope == 'mmdet':
                options.append(f'{field}.metainfo.classes=({DIGITS})')
            for i, step in enumerate(dataset.pipeline if 'demo' not in path else ()):
                options += [
                    f'{field}.pipeline.{i}.{key}=({"96,96" if key == "scale" else "64,64"})'
                    for key in ('scale', 'crop_size', 'size')
                    if key in step
                ]
    return options


def without_downloads(model, prefix):
    """Overrides that take out the weights a model starts from."""
    options = [f'{prefix}.backbone.init_cfg=None'] if model.backbone.get('init_cfg') else []
    return options + ([f'{prefix}.pretrained=None'] if model.get('pretrained') else [])


@pytest.fixture(scope='module')
def untrained(tmp_path_factory):
    """Make a checkpoint of a config's model as it is built, a teacher in all but knowledge."""
    folder = tmp_path_factory.mktemp('teachers')

    def make(path):
        target = folder / f'{Path(path).stem}.pth'
        return target if target.exists() else save_untrained(path, target)

    return make


def train(path, devkit, untrained, work_dir, *more):
    config = read_config(path)
    options = loaders(path, devkit)
    if is_distiller(config.model):
        options += without_downloads(config.model.student, 'model.student')
        options.append(f'model.teacher.checkpoint={untrained(config.model.teacher.config)}')
    else:
        options += without_downloads(config.model, 'model')
    if config.default_scope == 'mmdet':
        options += ['train_cfg.max_epochs=1', 'default_hooks.logger.interval=1']
        options.append(f'{box_head(config)}.num_classes=10')
        options += (
            ['train_dataloader.dataset.times=1'] if config.train_dataloader.dataset.type == 'RepeatDataset' else []
        )
    elif config.train_cfg.type == 'IterBasedTrainLoop':
        options += [
            'train_cfg.max_iters=4',
            'train_cfg.val_interval=4',
            'train_dataloader.batch_size=2',
            'default_hooks.checkpoint.interval=4',
            'default_hooks.logger.interval=1',
            f'model.{"student." if is_distiller(config.model) else ""}data_preprocessor.size=(64,64)',
        ]
        options += ['custom_hooks.0.iters=2'] if config.get('custom_hooks') else []
    else:
        options += ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.logger.interval=1']
        if is_upstream():  # class weights fail there where pixels are ignored
            prefix = 'model.student' if is_distiller(config.model) else 'model'
            options.append(f'{prefix}.decode_head.loss_decode.class_weight=None')
    result = run(
        'tools/train.py',
        path,
        '--work-dir',
        work_dir,
        *(item for item in more if item.startswith('-')),
        '--cfg-options',
        *options,
        *(item for item in more if not item.startswith('-')),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [
        json.loads(line)
        for file in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for line in file.read_text().splitlines()
    ]
    return [line for line in lines if 'loss' in line], [line for line in lines if 'loss' not in line]


def box_head(config):
    """Field of the head that tells a detector's classes apart; a teacher's is not run and keeps its own."""
    prefix = 'model.student' if is_distiller(config.model) else 'model'
    return f'{prefix}.roi_head.bbox_head' if 'roi_head' in bare_model(config) else f'{prefix}.bbox_head'


RECIPES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs/lckd').glob('voc_*.py'))


@pytest.mark.parametrize('path', RECIPES)
def test_every_recipe_trains_and_validates_on_a_devkit(path, devkit, untrained, tmp_path):
    steps, validations = train(path, devkit, untrained, tmp_path)
    assert steps[-1]['distiller.loss_lipschitz'] > 0 and steps[-1]['lipschitz/teacher_0'] > 0
    for step in steps:
        total, parts = total_and_parts(step)
        assert len(parts) >= 3 and total == pytest.approx(sum(parts), rel=1e-4)
    assert any(key.endswith(('mAP', 'mIoU')) for key in validations[-1])
    assert (tmp_path / 'lipschitz.png').is_file()


@pytest.mark.parametrize(
    'path', ['configs/teachers/voc_retinanet_r101.py', 'configs/baselines/voc_deeplabv3plus_mobilenetv2.py']
)
def test_teachers_and_students_alone_train_too(path, devkit, untrained, tmp_path):
    steps, validations = train(path, devkit, untrained, tmp_path)
    assert steps[-1]['loss'] > 0 and any(key.endswith(('mAP', 'mIoU')) for key in validations[-1])


@pytest.fixture(scope='module', params=[DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def trained(request, devkit, untrained, tmp_path_factory):
    """Config and work folder of two epochs of a demo's guided student."""
    folder = tmp_path_factory.mktemp('trained')
    train(request.param, devkit, untrained, folder, 'train_cfg.max_epochs=2')
    return request.param, folder


# Two epochs find nothing, so every box counts, at any overlap: what is compared is the evaluation, to the last digit.
LENIENT = ['model.test_cfg.rcnn.score_thr=0.0', 'test_evaluator.iou_thrs=[0.01]']


def with_tta_of_mmseg(config):
    """mmseg's stock tool has no default of its own: the fields of its base data sets, at the size of the scenes."""
    flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
    steps = [flips, [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]]
    config.tta_model = dict(type='SegTTAModel')
    config.tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=steps)]
    return config


@pytest.mark.parametrize('tta', [[], ['--tta']], ids=['plain', 'tta'])
def test_export_in_stock_mmdet_and_mmseg(tta, trained, devkit, tmp_path):
    path, folder = trained
    scope = read_config(path).default_scope
    alone = path.replace('r18x32_to_', '')
    lenient = LENIENT if scope == 'mmdet' else []
    result = run('tools/export_student.py', folder / 'epoch_2.pth', tmp_path / 'student.pth')
    assert result.returncode == 0, result.stderr
    (exported,) = tmp_path.glob('student-*.pth')
    stock_config = read_config(alone)
    if tta and scope == 'mmseg':
        stock_config = with_tta_of_mmseg(stock_config)
    stock_config.dump(tmp_path / 'alone.py')  # it has no bases: mmseg's fork does not find its own
    overrides = ['--cfg-options', *loaders(alone, devkit), *lenient]
    work_dir = ['--work-dir', tmp_path / 'theirs']
    theirs = run(stock_tool(scope, 'test'), tmp_path / 'alone.py', exported, *work_dir, *tta, *overrides)
    assert theirs.returncode == 0, theirs.stderr[-3000:]
    overrides = ['--cfg-options', *loaders(path, devkit), 'model.teacher.checkpoint=nowhere.pth']
    overrides += [option.replace('model.', 'model.student.', 1) for option in lenient]
    written = ['--work-dir', tmp_path / 'ours', '--out', tmp_path / 'ours.json']
    ours = run('tools/test.py', path, folder / 'epoch_2.pth', *written, *tta, *overrides)
    assert ours.returncode == 0, ours.stderr[-3000:]
    metrics = json.loads((tmp_path / 'ours.json').read_text())
    name = 'pascal_voc/mAP' if scope == 'mmdet' else 'mIoU'
    value = float(re.search(rf'{name}: ([\d.]+)', theirs.stdout + theirs.stderr)[1])
    assert metrics[name] > 0 and value == pytest.approx(metrics[name], abs=5e-5)  # theirs is printed with four digits


def test_resume_ends_with_the_same_bits(trained, devkit, untrained, tmp_path):
    path, folder = trained
    (tmp_path / 'epoch_1.pth').symlink_to(folder / 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    train(path, devkit, untrained, tmp_path, '--resume', 'train_cfg.max_epochs=2')
    one, other = (read_checkpoint(str(work_dir / 'epoch_2.pth'))['state_dict'] for work_dir in (folder, tmp_path))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize('path', [DETECTION, SEGMENTATION])
def test_mixed_precision_and_accumulated_gradients(path, devkit, untrained, tmp_path):
    steps, _ = train(path, devkit, untrained, tmp_path, '--amp', 'optim_wrapper.accumulative_counts=2')
    assert all(torch.isfinite(torch.tensor(step['loss'])) for step in steps)
    assert steps[-1]['distiller.loss_local'] > 0
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'CpuAmpOptimWrapper' in log or torch.cuda.is_available()


MOSAIC = f"""
_base_ = {str(ROOT / DETECTION)!r}
train_dataloader = dict(dataset=dict(
    _delete_=True, type='MultiImageMixDataset',
    dataset=dict(
        type='XMLDataset', data_root='', ann_file='VOC2007/ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]),
    pipeline=[
        dict(type='Mosaic', img_scale=(64, 64)), dict(type='MixUp', img_scale=(64, 64)), dict(type='PackDetInputs')]))
"""


def test_wrappers_that_mix_images(devkit, untrained, tmp_path):
    (tmp_path / 'mosaic.py').write_text(MOSAIC)
    steps, _ = train(str(tmp_path / 'mosaic.py'), devkit, untrained, tmp_path / 'run')
    assert steps and all(step['distiller.loss_local'] > 0 for step in steps)
