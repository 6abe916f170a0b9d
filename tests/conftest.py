"""Shared fixtures: small models of the three tasks, and the demo's data."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forkserver import READ_AT_IMPORT, ForkServer
from hypothesis import settings
from markers import add_markers
from mmengine.registry import init_default_scope

from mmlckd.config import bare_model, read_config
from mmlckd.functional import launches
from mmlckd.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
STAGES = [f'backbone.layer{i}' for i in (1, 2, 3, 4)]
COMPILES = pytest.mark.skipif(
    torch.__version__.startswith('2.0.') and sys.version_info >= (3, 11), reason='torch 2.0 compiles up to Python 3.10'
)


settings.register_profile('default', deadline=None, max_examples=60)
settings.register_profile('nightly', deadline=None, max_examples=2000)  # pytest --hypothesis-profile nightly
settings.load_profile('default')


def pytest_configure():
    torch.set_num_threads(1)  # small products gain nothing from a second thread, and lose much on shared cores
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # for the tools that tests start
    os.environ.setdefault('PYTHONPATH', str(ROOT))


def pytest_collection_modifyitems(items):
    for item in items:
        add_markers(item, run)
    # The longest files come first, so that no process waits long for the last file of another.
    order = [
        'test_voc.py',
        'test_wrong_input.py',
        'test_train.py',
        'test_classification.py',
        'test_docs.py',
        'test_analyze.py',
        'test_distributed.py',
        'test_study.py',
        'test_wheel.py',
    ]
    items.sort(key=lambda item: order.index(item.path.name) if item.path.name in order else len(order))


@pytest.fixture(autouse=True)
def no_gpu(request, monkeypatch):
    """A test is the same on every machine: only those marked ``gpu`` use a GPU where there is one."""
    if request.node.get_closest_marker('gpu') is None and torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        monkeypatch.setattr('mmengine.device.utils.DEVICE', 'cpu')


@pytest.fixture(scope='module', params=['as on a CPU', 'as on a GPU'])
def both_ways(request):
    """Run a test twice: with the operations of a CPU, and with the fewer ones of a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == 'as on a GPU':
            patch.setattr(launches, '_DEVICES', {'cpu'})
        yield


def run(*command, cwd=ROOT, **environment):
    """Run a tool or a launcher of this repository as a user would. Python tools run in a fork with torch imported."""
    command = [str(part) for part in command]
    changed = {name for name in environment if environment[name] != os.environ.get(name)}
    ours = dict(PYTHONPATH=str(ROOT), PYTHON=sys.executable, CUDA_VISIBLE_DEVICES='')
    environment = {**os.environ, **ours, **environment}
    if command[0].endswith('.py') and not changed & READ_AT_IMPORT:
        return forkserver().run(command, cwd, environment)
    program = 'bash' if command[0].endswith('.sh') else sys.executable
    return subprocess.run([program, *command], cwd=cwd, text=True, capture_output=True, env=environment)


def run_two_ranks(script, *arguments):
    """Run a script on two processes, at a port that is free."""
    folders = os.pathsep.join(map(str, (ROOT, script.parent, ROOT / 'tests')))
    launcher = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2')
    result = run(*launcher, script, *arguments, PYTHONPATH=folders)
    assert result.returncode == 0, result.stderr[-3000:]


def stock_tool(host, name):
    """A tool as a host library ships it."""
    return Path(importlib.import_module(host).__file__).parent / f'.mim/tools/{name}.py'


def total_and_parts(logged):
    """The loss of a logged step, and the parts that MMEngine adds up to it."""
    return logged['loss'], [value for name, value in logged.items() if 'loss' in name and name != 'loss']


@functools.cache
def forkserver():
    return ForkServer()


def save_untrained(path, target):
    """Write a checkpoint of a config's plain model with the weights that it is built with."""
    config = read_config(path)
    init_default_scope(config.default_scope)
    __import__(f'{config.default_scope}.models')
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(bare_model(config)).state_dict()), target)
    return target


@pytest.fixture(scope='session')
def mnist(tmp_path_factory):
    """Folder of MNIST-5k, written by the tool."""
    out = tmp_path_factory.mktemp('data') / 'mnist5k'
    result = run('tools/prepare_digits.py', '--out', out)
    assert result.returncode == 0, result.stderr
    return out


ALONE, TEACHER, GUIDED, LONDON = (
    f'configs/demo/mnist5k_{name}.py'
    for name in ('wrn10-1', 'wrn16-2', 'wrn16-2_to_wrn10-1', 'wrn16-2_to_wrn10-1_london')
)


def on_mnist(mnist):
    """Overrides that put a demo config on the session's data."""
    return [f'{name}_dataloader.dataset.data_root={mnist}' for name in ('train', 'val', 'test')]


@pytest.fixture(scope='session')
def teacher(tmp_path_factory):
    """Checkpoint of the demo's teacher, untrained."""
    return save_untrained(TEACHER, tmp_path_factory.mktemp('teacher') / 'teacher.pth')


@pytest.fixture(scope='session')
def trained_alone(mnist, tmp_path_factory):
    """Checkpoint of one epoch of the demo's student alone, as MMEngine writes it."""
    folder = tmp_path_factory.mktemp('alone')
    options = ['--work-dir', folder, '--cfg-options', *on_mnist(mnist), 'train_cfg.max_epochs=1']
    result = run('tools/train.py', ALONE, *options)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder / 'epoch_1.pth'


@pytest.fixture(scope='session')
def devkit(tmp_path_factory):
    """Devkit of a handful of digit scenes, written by the tool."""
    out = tmp_path_factory.mktemp('scenes') / 'VOCdevkit'
    result = run('tools/prepare_digit_scenes.py', '--out', out, '--train', 8, '--test', 4)
    assert result.returncode == 0, result.stderr
    return out


def _classification(depth):
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(type='ClsDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3),
        backbone=dict(type='ResNet', depth=depth),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=512, loss=dict(type='CrossEntropyLoss')),
    )


def _detection(depth):
    model = read_config('mmdet::_base_/models/faster-rcnn_r50_fpn.py').model
    model.backbone.update(depth=depth, init_cfg=None, frozen_stages=-1, norm_eval=False)
    model.neck.update(in_channels=[64, 128, 256, 512], out_channels=16)
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.roi_head.bbox_roi_extractor.out_channels = 16
    model.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32, num_classes=3)
    return model


def _segmentation(depth):
    model = read_config('mmseg::_base_/models/deeplabv3plus_r50-d8.py').model
    model.pretrained = None
    model.data_preprocessor.update(size=(64, 64))
    model.backbone.update(depth=depth, norm_cfg=dict(type='BN'))
    model.decode_head.update(
        in_channels=512, channels=16, c1_in_channels=64, c1_channels=8, num_classes=3, norm_cfg=dict(type='BN')
    )
    model.auxiliary_head.update(in_channels=256, channels=16, num_classes=3, norm_cfg=dict(type='BN'))
    return model


class Family:
    """A task: its scope, configs of a student (ResNet-18) and a teacher (ResNet-34), a batch of two random images."""

    def __init__(self, name, scope, model, batch):
        self.name, self.scope, self.student, self.teacher, self.batch = name, scope, model(18), model(34), batch


def _classification_batch():
    from mmpretrain.structures import DataSample

    images = torch.randint(0, 255, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=[DataSample().set_gt_label(label) for label in (1, 3)])


def _detection_batch():
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(2, [[3, 64, 64], [3, 64, 64]], num_items=[2, 2], num_classes=3)


def _segmentation_batch():
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (2, 3, 64, 64), generator=generator, dtype=torch.uint8)
    samples = [
        SegDataSample(
            gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 64, 64), generator=generator)),
            metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64)),
        )
        for _ in images
    ]
    return dict(inputs=list(images), data_samples=samples)


@pytest.fixture(params=['classification', 'detection', 'segmentation'])
def family(request):
    scope, model, batch = dict(
        classification=('mmpretrain', _classification, _classification_batch),
        detection=('mmdet', _detection, _detection_batch),
        segmentation=('mmseg', _segmentation, _segmentation_batch),
    )[request.param]
    __import__(f'{scope}.models')
    init_default_scope(scope)
    return Family(request.param, scope, model, batch())


@pytest.fixture
def classification():
    __import__('mmpretrain.models')
    init_default_scope('mmpretrain')
    return Family('classification', 'mmpretrain', _classification, _classification_batch())


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
