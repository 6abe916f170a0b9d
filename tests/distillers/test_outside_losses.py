"""Losses from outside this package, through a real distiller: forward, backward, log."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from mmlckd.losses import DistillationLoss, MapwiseLoss
from mmlckd.losses.checks import check_weight
from mmlckd.registry import MODELS

TAPS = ['backbone.layer2.0.bn1', 'backbone.bn']


class SumOfDistances(nn.Module):
    """As other toolkits have them: two sequences of maps in, a scalar out, and nothing of this package's contract."""

    def __init__(self, power=2):
        super().__init__()
        self.power = power

    def forward(self, student_feats, teacher_feats):
        return sum((ours - theirs).abs().pow(self.power).mean() for ours, theirs in zip(student_feats, teacher_feats))


class Scaled(nn.Module):
    """One with a parameter of its own, which looks at two maps."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, preds_S, preds_T):
        return ((preds_S - preds_T).square() * self.log_scale.exp()).mean() - self.log_scale


class Weighted(nn.Module):
    """One that does not look at the weight that it is given."""

    def __init__(self, loss_weight=1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, *feats):
        return self.loss_weight * sum((ours - theirs).square().mean() for ours, theirs in zip(*feats))


class Strict(Weighted):
    """One that compares its own field with a number."""

    def __init__(self, tau=1.0):
        super().__init__()
        if tau <= 0:
            raise ValueError('tau must be positive')


class OfTheContract(DistillationLoss):
    """One with the contract, without annotations, and with a weight more."""

    def __init__(self, loss_weight=1.0, beta=1.0):
        super().__init__(loss_weight)
        check_weight('beta', beta)


class OfMaps(MapwiseLoss):
    """One that inherits its arguments."""


def no_module(size=1):
    return size


@pytest.fixture(autouse=True)
def registered():
    kinds = (SumOfDistances, Scaled, Weighted, Strict, OfTheContract, OfMaps, no_module)
    for kind in kinds:
        MMENGINE_MODELS.register_module(module=kind)  # the root, whose names are seen from every scope
    yield
    for kind in kinds:
        MMENGINE_MODELS.module_dict.pop(kind.__name__)


@pytest.fixture(autouse=True)
def scope(classification):
    return classification


@pytest.fixture
def batch(classification):
    return dict(inputs=torch.randn(2, 3, 28, 28), data_samples=classification.batch['data_samples'])


WRONG = ['1', 'high', None, True, [1.0], {}]


@pytest.mark.parametrize('value', WRONG)
@pytest.mark.parametrize(
    'kind, field', [('OfTheContract', 'loss_weight'), ('OfTheContract', 'beta'), ('OfMaps', 'loss_weight')]
)
def test_a_weight_of_a_wrong_type_is_named(batch, kind, field, value):
    with pytest.raises(ValueError, match=rf'^losses\.outside\.{field} is {re.escape(repr(value))}: give a number$'):
        distil(batch, type=kind, **{field: value})


@pytest.mark.parametrize('value', ['1', 'high', True])
def test_so_is_that_of_a_class_that_does_not_look(batch, value):
    for fields in (dict(type='Weighted'), dict(type='mmlckd.EachMapLoss', loss=dict(type='Weighted'))):
        inner = fields.get('loss', fields)
        inner['loss_weight'] = value
        path = 'loss.loss_weight' if 'loss' in fields else 'loss_weight'
        with pytest.raises(ValueError, match=rf'^losses\.outside\.{path} is {value!r}: give a number$'):
            distil(batch, **fields)


@pytest.mark.parametrize('value', ['4', None, [4.0]])
def test_where_a_class_stumbles_all_its_fields_are_named(batch, value):
    given = re.escape(f'tau={value!r}')
    with pytest.raises(ValueError, match=f'^losses.outside cannot be made with {given}: .* so correct its fields$'):
        distil(batch, type='Strict', tau=value)
    with pytest.raises(ValueError, match='^losses.outside.tau must be positive'):
        distil(batch, type='Strict', tau=0)
    with pytest.raises(TypeError, match='unexpected keyword'):  # of which the tools make a sentence
        distil(batch, type='Strict', tua=1.0)


def test_what_is_no_module_is_no_loss(batch):
    with pytest.raises(ValueError, match=r'losses\.outside\.type makes a int: name a class of torch modules'):
        distil(batch, type='no_module')


def wrn(width):
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(type='ClsDataPreprocessor'),
        backbone=dict(type='mmlckd.WideResNet', depth=10, widen_factor=width),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=64 * width, loss=dict(type='CrossEntropyLoss')),
    )


def distil(batch, teacher_width=1, **loss):
    """The distiller after a backward pass of this loss alone, and the loss."""
    cfg = dict(taps=TAPS, type='mmlckd.LipschitzDistiller', student=wrn(1), teacher=dict(model=wrn(teacher_width)))
    model = MODELS.build(dict(cfg, losses=dict(outside=loss))).train()
    value = model(**batch, mode='loss')['distiller.loss_outside']
    value.backward()
    return model, value


def check_gradients(model):
    layer = model.backbone.layer2[0].bn1.weight
    assert layer.grad.isfinite().all() and layer.grad.abs().sum() > 0  # the first tapped layer
    assert all(weight.grad is None for weight in model.distiller.teacher.model.parameters())


def test_a_plain_module_works_unchanged(batch):
    model, value = distil(batch, type='SumOfDistances', power=1)
    loss = model.distiller.losses['outside']
    assert type(loss) is SumOfDistances and loss.power == 1 and not isinstance(loss, DistillationLoss)
    assert value.item() > 0
    check_gradients(model)


@pytest.mark.parametrize(
    'loss',
    [
        dict(type='torch.nn.MSELoss'),
        dict(type=nn.SmoothL1Loss),
        dict(type='mmdet.MSELoss', loss_weight=0.5),
        dict(type='SumOfDistances'),
    ],
)
@pytest.mark.parametrize('connectors, teacher_width', [(False, 1), (True, 2)])
def test_a_loss_of_two_maps_works_in_each_map_loss(batch, loss, connectors, teacher_width):
    model, value = distil(batch, teacher_width, type='mmlckd.EachMapLoss', loss=loss, connectors=connectors)
    assert value.item() > 0 and value.dtype == torch.float32
    check_gradients(model)
    assert all(weight.grad.abs().sum() > 0 for weight in model.distiller.connectors.parameters() if weight.dim() == 4)


def test_each_map_loss_is_what_the_outside_loss_gives_on_the_tapped_maps(batch):
    model, value = distil(batch, type='mmlckd.EachMapLoss', loss=dict(type='torch.nn.MSELoss'), loss_weight=2.0)
    model.zero_grad()
    targets = model.distiller.teacher(batch['inputs'], None)
    with model.distiller.tapped(model) as feats:
        model(**batch, mode='loss')
    entry = model.distiller.entries[0]
    pairs = [(feats[ours], targets[theirs]) for ours, theirs in zip(entry.student_taps, entry.teacher_taps)]
    expected = 2 * sum((ours - theirs).square().mean() for ours, theirs in pairs)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_parameters_of_an_outside_loss_are_trained_and_saved(batch):
    model, _ = distil(batch, type='mmlckd.EachMapLoss', loss=dict(type='Scaled'))
    names = [name for name, _ in model.named_parameters() if 'log_scale' in name]
    assert names == ['distiller.losses.outside.loss.log_scale'] and names[0] in model.state_dict()
    assert model.distiller.losses['outside'].loss.log_scale.grad is not None


def test_labels_reach_a_loss_that_asks_for_them(batch):
    model, value = distil(batch, type='mmlckd.DKDLoss', taps=['head.fc'])
    assert value.item() > 0
    assert model.head.fc.weight.grad.abs().sum() > 0


def test_a_hook_can_change_the_weight(batch):
    model, _ = distil(batch, type='mmlckd.EachMapLoss', loss=dict(type='torch.nn.MSELoss'))
    model.distiller.losses['outside'].loss_weight = 0.0
    assert model(**batch, mode='loss')['distiller.loss_outside'].item() == 0


def rectified_in_place(student_feats, teacher_feats):
    return sum(
        (F.relu(ours, inplace=True) - theirs).square().mean() for ours, theirs in zip(student_feats, teacher_feats)
    )


def teacher_in_place(student_feats, teacher_feats):
    return sum((ours - theirs.mul_(2)).square().mean() for ours, theirs in zip(student_feats, teacher_feats))


def copies_in_place(student_feats, teacher_feats):
    return sum((ours.clone().relu_() - theirs).square().mean() for ours, theirs in zip(student_feats, teacher_feats))


class Outside(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, student_feats, teacher_feats):
        return self.function(student_feats, teacher_feats)


def step_of(batch, function, connectors, order=('outside', 'at')):
    losses = dict(
        outside=dict(type=Outside, function=function, connectors=connectors),
        at=dict(type='mmlckd.AttentionTransferLoss', connectors=connectors),
    )
    cfg = dict(type='mmlckd.LipschitzDistiller', student=wrn(1), teacher=dict(model=wrn(2 if connectors else 1)))
    model = MODELS.build(dict(cfg, taps=['backbone.bn'], losses={name: losses[name] for name in order})).train()
    return model(**batch, mode='loss')


@pytest.mark.parametrize('connectors', [False, True])
@pytest.mark.parametrize('function', [rectified_in_place, teacher_in_place])
def test_a_loss_that_changes_the_maps_of_another_is_refused(batch, function, connectors):
    with pytest.raises(ValueError, match='losses.outside changes maps in place that losses.at compares, too: let it'):
        step_of(batch, function, connectors)


@pytest.mark.parametrize('connectors', [False, True])
def test_in_place_on_what_is_a_losss_own(batch, connectors):
    assert step_of(batch, copies_in_place, connectors)
    for function in (rectified_in_place, teacher_in_place):  # nothing comes after it
        assert step_of(batch, function, connectors, order=('at', 'outside'))
        assert step_of(batch, function, connectors, order=('outside',))
