"""Every block of docs/bring_your_own_model.md builds what it shows."""

from __future__ import annotations

import re

import pytest
from conftest import ALONE, ROOT, TEACHER, _classification
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmlckd.config import bare_model, read_config
from mmlckd.registry import HOOKS, MODELS

PAGE = (ROOT / 'docs' / 'bring_your_own_model.md').read_text()
RECIPE, *FRAGMENTS = re.findall(r'(?:<!-- networks: (\w+) -->\n)?```python\n(.+?)```', PAGE, re.DOTALL)
LOSSES = dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True))


def demo():
    return [bare_model(read_config(path)) for path in (ALONE, TEACHER)]


def vit():
    backbone = dict(type='VisionTransformer', arch='deit-tiny', img_size=224, patch_size=32)
    return [dict(type='ImageClassifier', backbone=backbone, head=None) for _ in range(2)]


def retinanet():
    __import__('mmdet.models')
    init_default_scope('mmdet')
    model = read_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py').model
    model.backbone.init_cfg = None
    return [model, model]


NETWORKS = {'': demo, 'resnet': lambda: [_classification(18), _classification(34)], 'vit': vit, 'retinanet': retinanet}


@pytest.fixture(autouse=True)
def scope():
    __import__('mmpretrain.models')
    init_default_scope('mmpretrain')


def build(fields, networks=''):
    student, teacher = NETWORKS[networks]()
    taps = ['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn']
    model = dict(type='mmlckd.LipschitzDistiller', student=student, taps=taps, losses=LOSSES)
    if not {'teacher', 'teachers'} & set(fields):
        model['teacher'] = dict(model=teacher)
    return MODELS.build({**model, **fields})


def test_the_recipe():
    config = Config.fromstring(RECIPE[1].replace("_base_ = '", f"_base_ = '{ROOT}/"), '.py')
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    assert [entry.name for entry in model.distiller.entries] == ['kd', 'ofd']
    assert config.custom_imports.imports == ['mmlckd']


@pytest.mark.parametrize('networks, block', FRAGMENTS)
def test_a_block(networks, block):
    fields = {}
    exec(compile(block, 'docs/bring_your_own_model.md', 'exec'), fields)
    fields.pop('__builtins__')
    hooks = [*fields.pop('custom_hooks', ()), *fields.pop('default_hooks', {}).values()]
    assert all(HOOKS.build(hook) for hook in hooks)
    if fields:
        model = build(fields, networks)
        assert len(model.distiller.teachers) == len(fields.get('teachers', ('one',)))
    assert fields or hooks


def test_a_list_may_hold_the_preset():
    model = build(dict(taps=['resnet_preact', 'neck.gap']), 'resnet')
    assert len(model.distiller.student_taps) == 5


def test_links_within_the_page():
    headings = {
        re.sub(r'[^\w -]', '', line).strip().lower().replace(' ', '-') for line in re.findall(r'^## (.+)', PAGE, re.M)
    }
    assert set(re.findall(r'\]\(#(.+?)\)', PAGE)) == headings
