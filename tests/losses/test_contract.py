"""What every loss owes the distiller and its hooks, and what losses of other toolkits get."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from mmengine.registry import Registry
from torch import nn

from mmlckd import losses
from mmlckd.compatibility import autocast_is_on
from mmlckd.losses import (
    AttentionTransferLoss,
    DistillationLoss,
    EachMapLoss,
    FSPLoss,
    LipschitzKDLoss,
    LogitsKDLoss,
    MapwiseLoss,
    OFDLoss,
)
from mmlckd.registry import MODELS

EXPORTED = [getattr(losses, name) for name in losses.__all__]
REGISTERED = [kind for kind in EXPORTED if kind not in (DistillationLoss, MapwiseLoss)]


def maps(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def make(kind, **options):
    return kind(nn.MSELoss(), **options) if kind is EachMapLoss else kind(**options)


@pytest.mark.parametrize('kind', REGISTERED)
def test_every_loss_is_registered_and_keeps_the_contract(kind):
    assert MODELS.get(f'mmlckd.{kind.__name__}') is kind and issubclass(kind, DistillationLoss)
    loss = make(kind, loss_weight=0.5)
    assert loss.loss_weight == 0.5 and int(loss.left_out) == 0 and loss.statistics() == {}
    assert 'loss_weight=0.5' in repr(loss)
    doc = inspect.getdoc(kind)
    assert all(heading in doc for heading in ('Args:', 'Source:', 'loss_weight:'))


@pytest.mark.parametrize('kind', REGISTERED)
@pytest.mark.parametrize(
    'weight, message',
    [
        (-1, 'loss_weight is -1: it must not be negative'),
        (math.nan, 'loss_weight is nan: give a finite number, 0 or above'),
        (math.inf, 'loss_weight is inf: give a finite number, 0 or above'),
        ('high', "loss_weight is 'high': give {kind} a number, such as [0-9.]+"),
        (True, 'loss_weight is True: give {kind} a number, such as [0-9.]+'),
        (None, 'loss_weight is None: give {kind} a number, such as [0-9.]+'),
    ],
)
def test_a_weight_that_is_none_is_refused(kind, weight, message):
    with pytest.raises(ValueError, match=f'^{message.format(kind=kind.__name__)}$'):
        make(kind, loss_weight=weight)


@pytest.mark.parametrize('weight', [-1, math.nan, math.inf])
def test_a_subclass_in_another_registry_has_its_weight_checked(weight):
    elsewhere = Registry('loss', scope='elsewhere')
    elsewhere.register_module('Mine', module=type('Mine', (MapwiseLoss,), {}))
    with pytest.raises(ValueError, match=f'^loss_weight is {weight}: '):
        elsewhere.build(dict(type='Mine', loss_weight=weight))


@pytest.mark.parametrize('kind, field', [(LipschitzKDLoss, 'pair_weights'), (OFDLoss, 'map_weights')])
@pytest.mark.parametrize(
    'weights, message',
    [
        ([1.0, -0.5], r'\[1\] is -0.5: it must not be negative'),
        ([math.nan, 1.0], r'\[0\] is nan: give a finite number, 0 or above'),
        ((0.5, math.inf), r'\[1\] is inf: give a finite number, 0 or above'),
        ([0.5, 'half'], r"\[1\] is 'half': give a number"),
        (2.0, r" is 2.0: give \w+ a string or a list of numbers, such as 'geometric'"),
        (None, r" is None: give \w+ a string or a list of numbers, such as 'geometric'"),
        ('equal', r" is 'equal': choose 'geometric'.* or a list of numbers"),
    ],
)
def test_listed_weights_that_are_none_are_refused(kind, field, weights, message):
    with pytest.raises(ValueError, match=f'^{field}{message}$'):
        kind(**{field: weights})


@pytest.mark.parametrize('kind', [kind for kind in REGISTERED if kind is not OFDLoss])  # it needs margins first
def test_the_number_of_maps_is_checked(kind):
    loss, feats = make(kind), maps(0, (2, 3), (2, 3))
    labels = torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match='1 student maps and 2 teacher maps: tap as many modules on both sides'):
        feats = [feat.view(2, 3, 1, 1) for feat in feats] if kind not in (LogitsKDLoss, losses.DKDLoss) else feats
        loss(feats[:1], feats, labels)


def test_a_subclass_without_its_method_says_which():
    with pytest.raises(NotImplementedError, match=r'Half has no compare\(student_feats, targets\): write it'):
        type('Half', (DistillationLoss,), {})()([], [])
    with pytest.raises(NotImplementedError, match=r'Half has no distance\(student, teacher\): write it'):
        type('Half', (MapwiseLoss,), {})()(maps(0, (2, 3)), maps(1, (2, 3)))


class Overflowing(MapwiseLoss):
    """Its distance is infinite, by way of a derivative that is too, where the teacher's first value is 0."""

    def distance(self, student, teacher):
        return (student.flatten(1).sum(1) / teacher.flatten(1)[:, 0].abs().sqrt()).square()


def test_a_distance_that_overflows_is_left_out_without_a_gradient():
    (student,), teacher = maps(0, (3, 2, 2)), torch.ones(3, 2, 2, dtype=torch.float64)
    teacher[1] = 0
    student.requires_grad_()
    loss = Overflowing()
    value = loss([student], [teacher])
    value.backward()
    assert value.item() == pytest.approx(student[[0, 2]].sum((1, 2)).square().mean().item())
    assert loss.left_out == 1 and (student.grad[1] == 0).all()
    assert torch.allclose(student.grad[0], student[0].sum().expand(2, 2))  # d/dx of (sum x)^2 / 2 samples


# Losses of other toolkits


def test_each_map_loss_is_the_sum_over_maps():
    student, teacher = maps(0, (2, 3, 4, 4), (2, 5, 2, 2)), maps(1, (2, 3, 4, 4), (2, 5, 2, 2))
    expected = sum((ours - theirs).square().mean() for ours, theirs in zip(student, teacher))
    assert EachMapLoss(nn.MSELoss(), loss_weight=3.0)(student, teacher).item() == pytest.approx(3 * expected.item())
    student = [feat.requires_grad_() for feat in student]
    assert torch.autograd.gradcheck(lambda *feats: EachMapLoss(nn.MSELoss())(feats, teacher), student)


@pytest.mark.parametrize(
    'kind', [dict(type='torch.nn.MSELoss'), dict(type=nn.MSELoss), dict(type='mmdet.MSELoss'), nn.MSELoss()]
)
def test_ways_to_name_an_outside_loss(kind):
    student, teacher = maps(0, (2, 3, 4, 4)), maps(1, (2, 3, 4, 4))
    loss = MODELS.build(dict(type='mmlckd.EachMapLoss', loss=kind))
    assert loss(student, teacher).item() == pytest.approx((student[0] - teacher[0]).square().mean().item())


def test_an_outside_loss_sees_finite_samples_in_full_precision():
    seen = []

    class Outside(nn.Module):
        def forward(self, student, teacher):
            seen.append((student.shape[0], student.dtype, autocast_is_on('cpu')))
            return (student - teacher).square().mean()

    student, teacher = (torch.randn(3, 2, 2, 2, dtype=torch.bfloat16) for _ in range(2))
    teacher[1, 0] = torch.nan
    loss = EachMapLoss(Outside())
    with torch.autocast('cpu', torch.bfloat16):
        value = loss([student.requires_grad_()], [teacher])
    value.backward()
    rest = (student.detach().float() - teacher.float())[[0, 2]]
    assert value.item() == rest.square().mean().item() and loss.left_out == 1
    assert seen == [(2, torch.float32, False)] and (student.grad[1] == 0).all()


def test_an_outside_loss_that_returns_no_scalar_is_told_how():
    feats = maps(0, (2, 3))
    with pytest.raises(
        ValueError, match=r"MSELoss returns \(2, 3\) where a scalar is needed: set its reduction to 'mean'"
    ):
        EachMapLoss(nn.MSELoss(reduction='none'))(feats, feats)
    with pytest.raises(ValueError, match='this loss needs equal shapes'):
        EachMapLoss(nn.MSELoss())(feats, maps(1, (2, 1)))
    pooled = EachMapLoss(losses.PKDLoss(), equal_shapes=False)
    assert pooled(maps(0, (2, 3, 4, 4)), maps(1, (2, 3, 8, 8))).isfinite()


# Attention transfer and FSP: precision, masks, batches


@pytest.mark.parametrize('kind', [AttentionTransferLoss, FSPLoss])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('scale', [1e-3, 1.0, 300.0])
def test_half_precision_maps_give_what_their_values_give(kind, dtype, scale):
    # at 300 squares are 9e4, above float16's 65504, and at 1e-3 they are 1e-6, with two digits left in float16
    student, teacher = ([(scale * feat).to(dtype) for feat in maps(i, (2, 3, 4, 4), (2, 5, 2, 2))] for i in range(2))
    expected = kind()([feat.double() for feat in student], [feat.double() for feat in teacher])
    assert kind()(student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)


def test_attention_of_far_scales():
    student, teacher = ([feat.float() for feat in maps(i, (2, 3, 4, 4))] for i in range(2))
    expected = AttentionTransferLoss()(student, teacher).item()
    for scale in (1e-5, 1e30):  # squares of 1e60 overflow float32
        assert AttentionTransferLoss()([scale * student[0]], teacher).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('kind', [AttentionTransferLoss, FSPLoss])
def test_tokens_are_positions(kind):
    student, teacher = (maps(i, (2, 3, 4, 4), (2, 5, 4, 4)) for i in range(2))
    tokens = [[feat.flatten(2).mT for feat in side] for side in (student, teacher)]
    assert kind()(*tokens).item() == pytest.approx(kind()(student, teacher).item())


def test_tokens_of_unequal_number_are_refused():
    student, teacher = maps(0, (2, 16, 3)), maps(1, (2, 9, 3))
    with pytest.raises(
        ValueError, match="maps of 16 and 9 positions meet, and tokens cannot be pooled: set grid='auto' on their taps"
    ):
        AttentionTransferLoss()(student, teacher)
    with pytest.raises(ValueError, match='maps of 16 and 9 positions meet'):
        FSPLoss()([*student, *teacher], [*student, *teacher])


def test_maps_of_one_network_belong_to_one_batch():
    images, regions = maps(0, (2, 3, 4, 4), (6, 3, 4, 4))
    for side, student, teacher in (('student', regions, images), ('teacher', images, regions)):
        with pytest.raises(
            ValueError, match=rf"the {side}'s maps hold \[2, 6\] samples: tap modules that see the same"
        ):
            FSPLoss()([images, student], [images, teacher])
