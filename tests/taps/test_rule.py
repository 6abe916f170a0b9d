"""The rule behind taps='auto' and taps='logits', on networks of many families."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import _classification, _segmentation
from mmengine.registry import init_default_scope

from mmlckd.registry import MODELS
from mmlckd.taps import Place, Tap, auto_pairs, find_places, output_pairs, pair_places
from mmlckd.taps.rule import BRANCHES

PATCH16 = dict(type='VisionTransformer', arch='deit-tiny', img_size=64, patch_size=16)
T2T = dict(
    type='T2T_ViT',
    embed_dims=64,
    num_layers=8,
    t2t_cfg=dict(token_dims=16, use_performer=False),
    layer_cfgs=dict(num_heads=2, feedforward_channels=64),
)
# Backbone: the strides of its places, by its own definition, and whether OFD finds batch norms before them.
CLASSIFIERS = {
    'resnet': (dict(type='ResNet', depth=18), [4, 8, 16, 32], True),
    'deep stem': (dict(type='ResNetV1d', depth=50, base_channels=4, stem_channels=4), [4, 8, 16, 32], True),
    'small images': (dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8), [1, 2, 4, 8], True),
    'regnet': (dict(type='RegNet', arch='regnetx_400mf'), [4, 8, 16, 32], True),
    'pre-activation': (dict(type='mmlckd.WideResNet', depth=10), [1, 2, 4], True),
    'convnext': (dict(type='ConvNeXt', arch='atto'), [4, 8, 16, 32], False),
    'swin': (dict(type='SwinTransformer', arch='tiny'), [4, 8, 16, 32], False),
    'vit': (PATCH16, [16] * 4, False),
    'distilled vit': (dict(PATCH16, type='DistilledVisionTransformer'), [16] * 4, False),
    'tokens to tokens': (T2T, [16] * 4, False),
    'mixer': (dict(type='MlpMixer', arch='s', img_size=64, patch_size=16), [16] * 4, False),
    'efficientnet': (dict(type='EfficientNet', arch='b0'), [4, 8, 16, 32], False),
    'mobilenet v2': (dict(type='MobileNetV2'), [4, 8, 16, 32], False),
    'mobilenet v3': (dict(type='MobileNetV3', arch='small'), [4, 8, 16, 32], False),
    'repvgg': (dict(type='RepVGG', arch='A0'), [4, 8, 16, 32], False),
    'shufflenet': (dict(type='ShuffleNetV2'), [4, 8, 16, 32], False),
    'densenet': (
        dict(type='DenseNet', arch=dict(growth_rate=8, depths=[2, 2, 2, 2], init_channels=16)),
        [4, 8, 16, 32],
        False,
    ),
    'poolformer': (dict(type='PoolFormer', arch='s12'), [4, 8, 16, 32], False),
}
SEGMENTORS = {
    'segformer': (dict(type='MixVisionTransformer', embed_dims=8, num_heads=[1, 2, 5, 8]), [4, 8, 16, 32]),
    'dilated': (dict(type='ResNetV1c', depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)), [4, 8, 8, 8]),
    'dilated, no residual stages': (
        dict(
            type='MobileNetV2', strides=(1, 2, 2, 1, 1, 1, 1), dilations=(1, 1, 1, 2, 2, 4, 4), out_indices=(1, 2, 4, 6)
        ),
        [4, 8, 8, 8],
    ),
    'DDRNet': (dict(type='DDRNet', channels=8, ppm_channels=8), [8, 8, 16, 32]),
    'PIDNet': (dict(type='PIDNet', channels=8, ppm_channels=8), [8, 8, 16, 32]),
    'BiSeNetV2': (dict(type='BiSeNetV2'), [4, 8, 16, 32]),
}


@pytest.fixture(autouse=True)
def hosts():
    __import__('mmpretrain.models')
    __import__('mmseg.models')
    init_default_scope('mmpretrain')


def classifier(backbone, **head):
    head = dict(type='LinearClsHead', num_classes=5, in_channels=4, **head)
    return MODELS.build(dict(type='ImageClassifier', backbone=copy.deepcopy(backbone), head=head))


def segmentor(backbone):
    head = dict(type='FCNHead', in_channels=4, channels=4, num_classes=3)
    return MODELS.build(dict(type='EncoderDecoder', _scope_='mmseg', backbone=dict(backbone), decode_head=head))


def strides(places):
    return [place.stride for place in places]


@pytest.mark.parametrize('family', CLASSIFIERS)
def test_classifiers(family):
    backbone, expected, before_relu = CLASSIFIERS[family]
    places = find_places(classifier(backbone))
    assert strides(places) == expected
    assert {place.before_relu for place in places} == {before_relu}
    assert all(place.trainable for place in places)


@pytest.mark.parametrize('family', SEGMENTORS)
def test_segmentors(family):
    backbone, expected = SEGMENTORS[family]
    model = segmentor(backbone)
    assert strides(find_places(model)) == expected
    table = BRANCHES.get(type(model.backbone).__name__)
    assert table is None or [place.tap.module for place in find_places(model)] == [f'backbone.{path}' for path in table]


def test_a_network_is_left_as_it_was():
    model = classifier(dict(type='ResNet', depth=18)).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    find_places(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_is_frozen_is_not_paired():
    student = classifier(dict(type='ResNet', depth=18, frozen_stages=1))
    teacher = classifier(dict(type='ResNet', depth=34, frozen_stages=4))  # a teacher may be frozen anywhere
    assert [ours.stride for ours, _ in auto_pairs(student, teacher)] == [8, 16, 32]
    with pytest.raises(ValueError, match='are frozen: lower frozen_stages'):
        auto_pairs(classifier(dict(type='ResNet', depth=18, frozen_stages=4)), teacher)


def place(stride, name):
    return Place(Tap(name), (1, 4, 64 // stride, 64 // stride), stride)


def test_pairs_are_by_stride_and_then_by_depth_from_the_deepest():
    dilated = [place(stride, f'd{i}') for i, stride in enumerate([4, 8, 8, 8])]
    branched = [place(stride, f'b{i}') for i, stride in enumerate([8, 8, 16, 32])]
    pairs = [(ours.tap.module, theirs.tap.module) for ours, theirs in pair_places(branched, dilated)]
    assert pairs == [('b0', 'd2'), ('b1', 'd3')]
    coarse = [place(stride, f'c{i}') for i, stride in enumerate([16, 32])]
    pairs = [(ours.tap.module, theirs.tap.module) for ours, theirs in pair_places(coarse, [place(14, 'other')])]
    assert pairs == [('c1', 'other')]


def distiller(student, teacher, **fields):
    return MODELS.build(dict(type='mmlckd.LipschitzDistiller', student=student, teacher=dict(model=teacher), **fields))


def test_auto_and_logits_are_values_in_configs():
    losses = dict(ofd=dict(type='mmlckd.OFDLoss', connectors=True), kd=dict(type='mmlckd.LogitsKDLoss', taps='logits'))
    model = distiller(_classification(18), _classification(34), taps='auto', losses=losses)
    ofd, kd = model.distiller.entries
    assert [str(tap) for tap in ofd.teacher_taps][0] == 'backbone.layer1.2.relu (io=input)'
    assert (kd.student_taps, kd.teacher_taps) == ([Tap('head.fc')], [Tap('head.fc')])


HEADS = {
    'linear': ({}, 'head.fc'),
    'stacked': (dict(type='StackedLinearClsHead', mid_channels=[8]), 'head.layers.1.fc'),
    'vit': (dict(type='VisionTransformerClsHead'), 'head.layers.head'),
}


@pytest.mark.parametrize('kind', HEADS)
def test_logits_of_classifiers(kind):
    head, path = HEADS[kind]
    both = [classifier(dict(type='ResNet', depth=18)), classifier(dict(type='ResNet', depth=18))]
    both[0].head = MODELS.build(dict(dict(type='LinearClsHead', num_classes=5, in_channels=4), **head))
    assert output_pairs(*both) == [(Tap(path), Tap('head.fc'))]


def test_logits_of_other_classes_or_without_a_layer_are_refused():
    student, teacher = _classification(18), _classification(34)
    teacher['head']['num_classes'] = 7
    losses = dict(kd=dict(type='mmlckd.LogitsKDLoss', taps='logits'))
    with pytest.raises(ValueError, match='the student has 5 classes, the teacher 7'):
        distiller(student, teacher, losses=losses)
    with pytest.raises(ValueError, match="the student's ImageClassifier has no layer that gives logits"):
        distiller(dict(student, head=None), teacher, losses=losses)


def test_logits_of_segmentors_need_one_size():
    init_default_scope('mmseg')
    student, teacher = (MODELS.build(_segmentation(depth)) for depth in (18, 34))
    assert output_pairs(student, teacher) == [(Tap('decode_head.conv_seg'), Tap('decode_head.conv_seg'))]
    coarse = segmentor(dict(type='ResNet', depth=18, out_indices=(3,)))
    coarse.decode_head = MODELS.build(dict(type='FCNHead', in_channels=512, channels=4, num_classes=3, in_index=0))
    with pytest.raises(ValueError, match='give heads of equal output size'):
        output_pairs(student, coarse)
