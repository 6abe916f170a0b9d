"""A recipe over a new-style config (``with read_base():``): the student is the base's model, its types are classes."""

from __future__ import annotations

import pytest
from conftest import ALONE, ROOT, TEACHER
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier

import mmlckd
from mmlckd.config import bare_model, read_config
from mmlckd.distillers import LipschitzDistiller

STUDENT = """
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop
from mmpretrain.datasets import CustomDataset, LoadImageFromFile, PackInputs
from mmpretrain.models import (
    ClsDataPreprocessor, CrossEntropyLoss, GlobalAveragePooling, ImageClassifier, LinearClsHead)
from torch.optim import SGD

from mmlckd.backbones import WideResNet

data_preprocessor = dict(type=ClsDataPreprocessor, mean=[33.3] * 3, std=[78.6] * 3, to_rgb=False)
model = dict(
    type=ImageClassifier,
    backbone=dict(type=WideResNet, depth=10),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=64, loss=dict(type=CrossEntropyLoss)))
train_dataloader = dict(
    batch_size=10, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(
        type=CustomDataset, data_root=MNIST, ann_file='meta/train_100.txt',
        pipeline=[dict(type=LoadImageFromFile), dict(type=PackInputs)]))
train_cfg = dict(type=IterBasedTrainLoop, max_iters=2)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.05))
"""
RECIPE = """
from mmengine.config import read_base

from mmlckd.distillers import LipschitzDistiller
from mmlckd.losses import LipschitzKDLoss, LogitsKDLoss

with read_base():
    from .student import *

model = dict(
    type=LipschitzDistiller,
    student=model,
    teacher=dict(config=TEACHER_CONFIG),
    taps=['backbone.layer3.0.bn1', 'backbone.bn'],
    losses=dict(
        lipschitz=dict(type=LipschitzKDLoss, connectors=True), kd=dict(type=LogitsKDLoss, taps=['head.fc'])))
"""


@pytest.fixture
def recipe(mnist, tmp_path):
    """Write a recipe over a new-style student, with the given config as its teacher's."""

    def write(teacher):
        (tmp_path / 'student.py').write_text(STUDENT.replace('MNIST', repr(str(mnist))))
        (tmp_path / 'recipe.py').write_text(RECIPE.replace('TEACHER_CONFIG', repr(str(teacher))))
        return tmp_path / 'recipe.py'

    return write


@pytest.mark.parametrize('teacher', ['student.py', ROOT / TEACHER], ids=['a new-style teacher', 'an old-style teacher'])
def test_a_new_style_base_is_distilled(recipe, teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = mmlckd.prepare(read_config(recipe(teacher)))
    assert config.model.type is LipschitzDistiller and bare_model(config).type is ImageClassifier
    runner = Runner.from_cfg(config)
    before = [parameter.clone() for parameter in runner.model.backbone.parameters()]
    runner.train()
    assert any(not old.equal(new) for old, new in zip(before, runner.model.backbone.parameters()))
    losses = runner.message_hub.log_scalars
    assert losses['train/distiller.loss_lipschitz'].current() > 0 and losses['train/distiller.loss_kd'].current() > 0


def test_styles_do_not_mix_in_one_chain(tmp_path):
    # MMEngine's rule; the docs say it, and what to do instead
    (tmp_path / 'student.py').write_text(STUDENT.replace('MNIST', repr('data')))
    (tmp_path / 'old.py').write_text("_base_ = './student.py'\n")
    (tmp_path / 'new.py').write_text(
        f'from mmengine.config import read_base\nwith read_base():\n    from .base import *\n# over {ALONE}\n'
    )
    (tmp_path / 'base.py').write_text(f'_base_ = {str(ROOT / ALONE)!r}\n')
    for name in ('old.py', 'new.py'):
        with pytest.raises(ValueError, match='must match the current configuration file type'):
            read_config(tmp_path / name)
