"""New-style configs, whose types are classes, in every tool; scoped names and classes wherever a type is compared."""

from __future__ import annotations

import json
from argparse import Namespace

import mmcv.cnn  # noqa: F401  registers the norm layers
import pytest
import torch
from conftest import ALONE, GUIDED, TEACHER, run
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.model import MMFullyShardedDataParallel
from mmengine.registry import HOOKS as RUNNER_HOOKS
from mmengine.registry import MODELS as RUNNER_MODELS
from mmengine.runner import Runner

from mmlckd.cli import check_prerequisites, load_run_config
from mmlckd.cli.processes import _replace_sync_bn
from mmlckd.config import bare_model, host_of, is_distiller, read_config
from mmlckd.distillers import LipschitzDistiller
from mmlckd.losses import LipschitzKDLoss
from mmlckd.registry import same_type

DATA = """
from mmengine.dataset import DefaultSampler
from mmpretrain.datasets import CustomDataset, LoadImageFromFile, PackInputs
from mmpretrain.evaluation import Accuracy

pipeline = [dict(type=LoadImageFromFile), dict(type=PackInputs)]
train_dataloader = dict(
    batch_size=50, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(type=CustomDataset, data_root={mnist!r}, ann_file='meta/train_100.txt', pipeline=pipeline))
val_dataloader = dict(
    batch_size=200, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=CustomDataset, data_root={mnist!r}, ann_file='meta/val.txt', pipeline=pipeline))
test_dataloader = dict(
    batch_size=200, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=CustomDataset, data_root={mnist!r}, ann_file='meta/test.txt', pipeline=pipeline))
val_evaluator = test_evaluator = dict(type=Accuracy, topk=(1,))
"""
MODEL = """
from mmengine.config import read_base
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from mmpretrain.models import (
    ClsDataPreprocessor, CrossEntropyLoss, GlobalAveragePooling, ImageClassifier, LinearClsHead)
from torch.optim import SGD

from mmlckd.backbones import WideResNet
from mmlckd.distillers import LipschitzDistiller
from mmlckd.hooks import SpectralNormHook
from mmlckd.losses import LipschitzKDLoss, LogitsKDLoss

with read_base():
    from .data import *

student = dict(
    type=ImageClassifier,
    data_preprocessor=dict(type=ClsDataPreprocessor, mean=[33.3] * 3, std=[78.6] * 3, to_rgb=False),
    backbone=dict(type=WideResNet, depth=10),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=64, loss=dict(type=CrossEntropyLoss)))
model = dict(
    type=LipschitzDistiller,
    student=student,
    teacher=dict(config={teacher_config!r}, checkpoint={teacher!r}),
    taps=['backbone.layer3.0.bn1', 'backbone.bn'],
    losses=dict(
        lipschitz=dict(type=LipschitzKDLoss, distance='relative'), kd=dict(type=LogitsKDLoss, taps=['head.fc'])))
default_scope = None
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.05))
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
default_hooks = dict(
    checkpoint=dict(type=CheckpointHook, interval=1),
    logger=dict(type=LoggerHook, interval=1),
    spectral_norm=dict(type=SpectralNormHook, interval=1))
"""


@pytest.fixture(scope='module')
def config(mnist, teacher, tmp_path_factory):
    """A distillation whose config holds classes alone, in two files."""
    folder = tmp_path_factory.mktemp('new_style')
    (folder / 'data.py').write_text(DATA.replace('{mnist!r}', repr(str(mnist))))
    text = MODEL.replace('{teacher_config!r}', repr(TEACHER)).replace('{teacher!r}', repr(str(teacher)))
    (folder / 'distilled.py').write_text(text)
    return folder / 'distilled.py'


@pytest.fixture(scope='module')
def trained(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    result = run('tools/train.py', config, '--work-dir', folder)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def test_training(trained):
    steps = [
        json.loads(line) for file in trained.glob('*/vis_data/scalars.json') for line in file.read_text().splitlines()
    ]
    assert any('distiller.loss_lipschitz' in step for step in steps) and any('accuracy/top1' in step for step in steps)
    assert (trained / 'epoch_1.pth').is_file() and (trained / 'lipschitz.json').is_file()


def test_testing_runs_the_student_without_its_teacher(config, trained, tmp_path):
    options = ['--cfg-options', 'model.teacher.checkpoint=nowhere.pth']
    out = ['--out', tmp_path / 'metrics.json', '--work-dir', tmp_path]
    result = run('tools/test.py', config, trained / 'epoch_1.pth', *out, *options)
    assert result.returncode == 0, result.stderr[-3000:]
    assert 0 <= json.loads((tmp_path / 'metrics.json').read_text())['accuracy/top1'] <= 100


def test_the_dumped_config_runs_too(trained, tmp_path):
    result = run('tools/test.py', trained / 'distilled.py', trained / 'epoch_1.pth', '--work-dir', tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]


def test_analysis_finds_the_taps_and_the_loss(config, trained, tmp_path):
    result = run(
        'tools/analyze_lipschitz.py', config, trained / 'epoch_1.pth', '--images', 2, '--num-iters', 2, '--noise', 0,
        '--epsilon', 1, '--out', tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    report = json.loads((tmp_path / 'report.json').read_text())
    assert set(report['networks']) == {'student', 'teacher'}
    assert report['center'] is True  # a relative distance is of centred maps: the loss was found
    assert report['networks']['student']['taps'] == ['backbone.layer3.0.bn1', 'backbone.bn']


@pytest.mark.parametrize('option, named', [('train_dataloader', 'train'), ('val_dataloader', 'val')])
def test_missing_data_is_found_before_anything_is_built(config, tmp_path, option, named):
    options = ['--cfg-options', f'{option}.dataset.data_root=nowhere']
    result = run('tools/train.py', config, '--work-dir', tmp_path / 'run', *options)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert f"{named}_dataloader.dataset.data_root is 'nowhere', which does not exist" in result.stderr
    assert not (tmp_path / 'run').exists()


def test_annotations_are_checked(config, mnist, tmp_path):
    (tmp_path / 'list.txt').write_text('0/0000.png\n')
    settings = read_config(str(config))
    settings.train_dataloader.dataset.ann_file = str(tmp_path / 'list.txt')
    with pytest.raises(ValueError, match='line 1 of .*list.txt is .*: write a file name, a space and a label'):
        check_prerequisites(settings)


def test_the_host_is_known_by_the_class(config):
    settings = read_config(str(config))
    assert settings.default_scope is None and host_of(settings) == 'mmpretrain' == host_of(read_config(ALONE))
    assert is_distiller(settings.model) and bare_model(settings).type.__name__ == 'ImageClassifier'


@pytest.mark.parametrize(
    'spec',
    [LipschitzDistiller, 'mmlckd.LipschitzDistiller', 'LipschitzDistiller', 'mmlckd.distillers.LipschitzDistiller',
     'mmlckd.distillers.lipschitz_distiller.LipschitzDistiller'],
)  # fmt: skip
def test_every_way_to_write_a_distiller(spec):
    assert is_distiller(dict(type=spec))


@pytest.mark.parametrize(
    'spec', [LipschitzKDLoss, 'mmlckd.LipschitzKDLoss', 'mmdet.LipschitzDistiller', 'Distiller', None]
)
def test_what_is_no_distiller(spec):
    assert not is_distiller(dict(type=spec))


@pytest.mark.parametrize(
    'spec', [CheckpointHook, 'CheckpointHook', 'mmengine.CheckpointHook', 'mmengine.hooks.CheckpointHook']
)
def test_every_way_to_write_a_hook(spec):
    assert same_type(spec, RUNNER_HOOKS, CheckpointHook)
    assert not same_type(spec, RUNNER_HOOKS, Runner) and not same_type('LoggerHook', RUNNER_HOOKS, CheckpointHook)


@pytest.mark.parametrize(
    'spec', [torch.nn.SyncBatchNorm, 'SyncBN', 'mmengine.SyncBN', RUNNER_MODELS.get('SyncBN'), 'torch.nn.SyncBatchNorm']
)
def test_every_way_to_write_sync_bn_is_replaced(spec):
    model = ConfigDict(backbone=dict(norm_cfg=dict(type=spec)), heads=[dict(norm_cfg=dict(type='BN'))])
    assert _replace_sync_bn(model) and model.backbone.norm_cfg.type == 'BN'
    assert not _replace_sync_bn(model)


@pytest.mark.parametrize(
    'fields, named',
    [
        (dict(model_wrapper_cfg=dict(type=MMFullyShardedDataParallel)), 'model_wrapper_cfg.type'),
        (dict(model_wrapper_cfg=dict(type='mmengine.MMFullyShardedDataParallel')), 'model_wrapper_cfg.type'),
        (dict(runner_type='mmengine.FlexibleRunner'), 'runner_type'),
        (dict(runner_type='Runner'), None),
        (dict(runner_type='mmengine.Runner'), None),
        (dict(model_wrapper_cfg=dict(type='mmengine.MMDistributedDataParallel')), None),
    ],
)
def test_every_way_to_ask_for_sharding_is_refused(fields, named, tmp_path):
    args = Namespace(config=GUIDED, cfg_options=fields, launcher='none', work_dir=str(tmp_path))
    if named is None:
        assert isinstance(load_run_config(args), Config)
        return
    with pytest.raises(ValueError, match=f'{named} is .*FSDP and DeepSpeed are not supported'):
        load_run_config(args)
