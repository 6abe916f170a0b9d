"""Numbers that go wrong: whatever the maps hold, the loss and its gradient are finite, and bad samples pull on nothing."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlckd.losses import AttentionTransferLoss, FSPLoss, LipschitzKDLoss, LogitsKDLoss, OFDLoss

LOSSES = {
    **{f'lipschitz, {distance}': partial(LipschitzKDLoss, distance=distance) for distance in LipschitzKDLoss.DISTANCES},
    'lipschitz, centred absolute': partial(LipschitzKDLoss, distance='absolute', center=True),
    'ofd': OFDLoss,
    'at': AttentionTransferLoss,
    'fsp': FSPLoss,
    'kd': LogitsKDLoss,
}
SPOILS = {
    'none': lambda feat: feat,
    'zero': torch.zeros_like,
    'constant': lambda feat: torch.full_like(feat, 3.0),
    'one dead channel': lambda feat: feat * (torch.arange(len(feat)) > 0).view(-1, *[1] * (feat.dim() - 1)).to(feat),
    'tiny': lambda feat: feat * 1e-7,
    'large': lambda feat: feat * 1e4,  # squares overflow float16
    'nan': lambda feat: torch.full_like(feat, torch.nan),
    'one inf': lambda feat: feat.flatten().index_fill(0, torch.tensor(0), torch.inf).view_as(feat),
}
BAD = ('nan', 'one inf')


def maps(shapes, batch, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, generator=generator).to(dtype) for shape in shapes]


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
    shapes = [(channels,)] if name == 'kd' else [(channels, 2 * size, 2 * size), (channels, size, size)]
    feats = dict(
        student=maps(shapes, batch, dtype, seed), teacher=maps(shapes, batch, dtype, seed if equal else seed + 1)
    )
    sample = which % batch
    for each in ('student', 'teacher') if side == 'both' else (side,):
        for feat in feats[each]:
            feat[sample] = SPOILS[spoil](feat[sample])
    for feat in feats['student']:
        feat.requires_grad_()
    loss = LOSSES[name]()
    if name == 'ofd':
        loss.margins = [torch.full((channels,), -0.5)] * len(shapes)
    value = loss(feats['student'], feats['teacher'])
    value.backward()
    assert value.isfinite() and value.dtype == torch.float32
    for feat in feats['student']:
        # a finite gradient that float16 cannot hold is a loss scaler's business
        assert feat.grad.float().isfinite().all() or (spoil == 'large' and dtype == torch.float16)
        if spoil in BAD:
            assert (feat.grad[sample] == 0).all()
    if spoil in BAD:
        assert loss.left_out >= 1


@pytest.mark.parametrize('name', LOSSES)
def test_an_empty_batch_costs_nothing(name):
    student = torch.zeros(0, 3, 4, 4, requires_grad=True)
    loss = LOSSES[name]()
    if name == 'ofd':
        loss.margins = [torch.zeros(3)] * 2
    value = loss([student, student], [student.detach()] * 2)
    value.backward()
    assert value.item() == 0 and student.grad.shape == student.shape
