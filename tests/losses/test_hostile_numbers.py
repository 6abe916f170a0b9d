"""Numbers that go wrong: whatever the maps hold, the loss and its gradient are finite, and bad samples pull on
nothing.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmlckd.losses import (
    AttentionTransferLoss,
    CWDLoss,
    DISTLoss,
    DKDLoss,
    EachMapLoss,
    FSPLoss,
    LipschitzKDLoss,
    LogitsKDLoss,
    OFDLoss,
    PKDLoss,
)

LOSSES = {
    **{f'lipschitz, {distance}': partial(LipschitzKDLoss, distance=distance) for distance in LipschitzKDLoss.DISTANCES},
    'lipschitz, centred absolute': partial(LipschitzKDLoss, distance='absolute', center=True),
    'ofd': OFDLoss,
    'at': AttentionTransferLoss,
    'fsp': FSPLoss,
    'cwd': CWDLoss,
    'pkd': PKDLoss,
    'each map': lambda: EachMapLoss(nn.SmoothL1Loss()),
    'kd': LogitsKDLoss,
    'kd, sigmoid': partial(LogitsKDLoss, activation='sigmoid'),
    'dkd': DKDLoss,
    'dist': DISTLoss,
    'dist, sigmoid': partial(DISTLoss, activation='sigmoid'),
}
OF_LOGITS = ('kd', 'kd, sigmoid', 'dkd', 'dist', 'dist, sigmoid')
AT_LEAST_TWO_CLASSES = ('dkd', 'dist', 'dist, sigmoid')
SPOILS = {
    'none': lambda feat: feat,
    'zero': torch.zeros_like,
    'constant': lambda feat: torch.full_like(feat, 3.0),
    'one dead channel': lambda feat: feat * (torch.arange(len(feat)) > 0).view(-1, *[1] * (feat.dim() - 1)).to(feat),
    'rank one': lambda feat: feat[:1].expand_as(feat).clone(),
    'one value': lambda feat: torch.zeros_like(feat).flatten().index_fill(0, torch.tensor(0), 1.0).view_as(feat),
    'tiny': lambda feat: feat * 1e-7,
    'vanishing': lambda feat: feat * 1e-30,  # squares are 0 in float32
    'large': lambda feat: feat * 1e4,  # squares overflow float16
    'huge': lambda feat: (
        (feat.float() * 1e25).clamp(-6e4, 6e4).to(feat) if feat.dtype == torch.float16 else feat * 1e25
    ),
    'at the end': lambda feat: feat.sign() * torch.finfo(feat.dtype).max,  # differences overflow
    'nan': lambda feat: torch.full_like(feat, torch.nan),
    'one inf': lambda feat: feat.flatten().index_fill(0, torch.tensor(0), torch.inf).view_as(feat),
}
BAD = ('nan', 'one inf')


def maps(shapes, batch, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, generator=generator).to(dtype) for shape in shapes]


def shapes_for(name, channels, size):
    if name in OF_LOGITS:
        return [(channels + (name in AT_LEAST_TWO_CLASSES),)]
    return [(channels, 2 * size, 2 * size), (channels, size, size)]


def make(name, channels, count):
    loss = LOSSES[name]()
    if name == 'ofd':
        loss.margins = [torch.full((channels,), -0.5)] * count
    return loss


@pytest.mark.parametrize('name', LOSSES)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 5),
    size=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    side=st.sampled_from(['student', 'teacher', 'both']),
    spoil=st.sampled_from(list(SPOILS)),
    which=st.integers(0, 2),
    equal=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_finite_whatever_the_maps_hold(name, batch, channels, size, dtype, side, spoil, which, equal, seed):
    if name == 'each map' and spoil == 'at the end':
        spoil = 'huge'  # what a loss from outside makes of numbers that overflow in it is its own
    shapes = shapes_for(name, channels, size)
    feats = dict(
        student=maps(shapes, batch, dtype, seed), teacher=maps(shapes, batch, dtype, seed if equal else seed + 1)
    )
    sample = which % batch
    for each in ('student', 'teacher') if side == 'both' else (side,):
        for feat in feats[each]:
            feat[sample] = SPOILS[spoil](feat[sample])
    labels = torch.zeros(batch, dtype=torch.long)
    gradients = {}
    for precision in (torch.float32, dtype):
        student = [feat.to(precision, copy=True).requires_grad_() for feat in feats['student']]
        loss = make(name, channels, len(shapes))
        value = loss(student, feats['teacher'], labels)
        value.backward()
        assert value.isfinite() and value.dtype == torch.float32
        assert loss.left_out >= 1 or spoil not in BAD
        gradients[precision] = [feat.grad.float() for feat in student]
    for wide, narrow in zip(gradients[torch.float32], gradients[dtype]):
        assert wide.isfinite().all()
        # what is finite in float32 and not in float16 is a loss scaler's business
        assert (narrow.isfinite() | (wide.abs() > 0.99 * torch.finfo(dtype).max)).all()
        assert spoil not in BAD or (wide[sample] == 0).all()


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('side', ['student', 'teacher'])
@pytest.mark.parametrize('spoil', BAD)
def test_a_bad_sample_changes_nothing_for_the_others(name, side, spoil):
    shapes = shapes_for(name, 4, 3)
    feats = dict(student=maps(shapes, 5, torch.float64, 0), teacher=maps(shapes, 5, torch.float64, 1))
    labels = torch.tensor([0, 1, 2, 3, 0])
    whole = dict(
        student=[feat.clone() for feat in feats['student']], teacher=[feat.clone() for feat in feats['teacher']]
    )
    for feat in whole[side]:
        feat[4] = SPOILS[spoil](feat[4])
    values, gradients = [], []
    for sides, count in ((whole, 5), ({name: [feat[:4] for feat in maps] for name, maps in feats.items()}, 4)):
        student = [feat.clone().requires_grad_() for feat in sides['student']]
        value = make(name, 4, len(shapes))(student, sides['teacher'], labels[:count])
        value.backward()
        values.append(value.item() * (count if name == 'ofd' else 1))  # OFD divides by the size of the batch
        gradients.append([feat.grad[:4] * (count if name == 'ofd' else 1) for feat in student])
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    for ours, theirs in zip(*gradients):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12) and theirs.abs().sum() > 0


@pytest.mark.parametrize('name', LOSSES)
def test_an_empty_batch_costs_nothing(name):
    student = torch.zeros(0, *shapes_for(name, 3, 4)[0], requires_grad=True)
    count = 1 if name in OF_LOGITS else 2
    value = make(name, 3, count)([student] * count, [student.detach()] * count, torch.zeros(0, dtype=torch.long))
    value.backward()
    assert value.item() == 0 and student.grad.shape == student.shape


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_and_half_precision_change_nothing_but_the_maps_rounding(name, dtype):
    shapes = shapes_for(name, 4, 3)
    student, teacher = maps(shapes, 3, dtype, 0), maps(shapes, 3, dtype, 1)
    labels = torch.tensor([0, 1, 2])
    widened = make(name, 4, len(shapes))([f.float() for f in student], [f.float() for f in teacher], labels)
    with torch.autocast('cpu', torch.bfloat16):
        cast = make(name, 4, len(shapes))([f.float() for f in student], [f.float() for f in teacher], labels)
        half = make(name, 4, len(shapes))(student, teacher, labels)
    assert half.dtype == cast.dtype == torch.float32
    assert cast.item() == widened.item() and half.item() == widened.item()


@pytest.mark.parametrize('name', LOSSES)
def test_a_batch_of_one_is_not_spread_over_the_other_side(name):
    shapes = shapes_for(name, 4, 3)
    one, three = maps(shapes, 1, torch.float32, 0), maps(shapes, 3, torch.float32, 1)
    for student, teacher, sizes in (
        (one, three, '1 against a teacher batch of 3'),
        (three, one, '3 against a teacher batch of 1'),
    ):
        with pytest.raises(ValueError, match=f'a student batch of {sizes}: both must see the same images'):
            make(name, 4, len(shapes))(student, teacher, torch.zeros(len(student[0]), dtype=torch.long))
