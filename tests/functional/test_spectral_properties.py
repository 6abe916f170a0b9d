"""What must hold for any number of iterations, any rank and any way of calling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmlckd.functional import operator_norm, transmitting_norm
from mmlckd.functional.krylov import leading_eigenvector


def exact(feat_in, feat_out, center):
    """sigma_max(F_in F_out^T / N) in float64, by way of the small triangular factors of F^T = Q R."""
    feats = [feat.double().flatten(2) for feat in (feat_in, feat_out)]
    if center:
        feats = [feat - feat.mean(-1, keepdim=True) for feat in feats]
    first, second = (torch.linalg.qr(feat, mode='r')[1] for feat in feats)
    return torch.linalg.matrix_norm(first @ second.mT, 2) / feats[0].shape[-1]


def noise(batch, channels, height, width, seed, dtype=torch.float32):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize('size', [(3, 4), (4, 4), (6, 6)])
def test_iterations_beyond_the_rank_do_no_harm(size, dtype, tolerance):
    """Centred maps of N positions have rank N - 1 at most: the last of N + 4 iterations are rounding noise."""
    for seed in range(6):  # without the floor in the iteration, the noise does harm in a few draws of a hundred
        feats = [noise(8, 512, *size, 2 * seed + side, dtype) for side in (0, 1)]
        value = transmitting_norm(*feats, num_iters=size[0] * size[1] + 4, center=True)
        assert torch.allclose(value.double(), exact(*feats, center=True), rtol=tolerance)


@pytest.mark.parametrize('rank', [1, 3, 7])
def test_iterations_beyond_the_rank_of_low_rank_maps(rank):
    """Maps of 49 positions spanned by fewer: the default 10 iterations exhaust them."""
    mixing, sources = noise(2, 256, rank, 1, rank), noise(2, 8, rank, 49, rank + 1)
    feat_in, feat_out = (
        torch.einsum('crx,brn->bcn', mixing[side], sources[side]).unflatten(2, (7, 7)) for side in (0, 1)
    )
    for center in (False, True):
        value = transmitting_norm(feat_in, feat_out, center=center)
        assert torch.allclose(
            value.double(), exact(feat_in, feat_out, center), rtol=1e-5
        )  # float32, a sum of 49 products


@given(
    num_iters=st.integers(1, 12),
    center=st.booleans(),
    seed=st.integers(0, 10**6),
    channels=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
@settings(max_examples=60, deadline=None)
def test_never_above_the_singular_value(num_iters, center, seed, channels):
    """u^T M v with unit u and v is at most sigma_max(M), however few iterations found them."""
    feats = [noise(2, count, 6, 6, seed + side, torch.float64) for side, count in enumerate(channels)]
    assert (transmitting_norm(*feats, num_iters=num_iters, center=center) <= exact(*feats, center) * (1 + 1e-12)).all()


@pytest.mark.parametrize('center', [False, True])
def test_one_sample_alone_is_as_in_its_batch(center):
    feats = [noise(5, 64, 8, 8, side, torch.float64) for side in (0, 1)]
    whole = transmitting_norm(*feats, center=center)
    for i in range(5):
        assert torch.allclose(
            transmitting_norm(*(feat[i : i + 1] for feat in feats), center=center), whole[i : i + 1], rtol=1e-8
        )


@pytest.mark.parametrize('center', [False, True])
def test_a_sample_that_is_not_a_number_stays_alone(center):
    feat_in, feat_out = (noise(3, 16, 8, 8, side) for side in (0, 1))
    clean = transmitting_norm(feat_in, feat_out, center=center)
    feat_in[1, 0, 0, 0] = float('nan')
    value = transmitting_norm(feat_in, feat_out, center=center)
    assert value[1].isnan() and torch.allclose(value[[0, 2]], clean[[0, 2]], rtol=1e-5)


def test_both_directions_agree():
    """M of the swapped pair is the transpose, with the same norm. Its rank is 24, so both are exact."""
    feats = [noise(3, channels, 8, 8, channels) for channels in (24, 40)]
    forth, back = transmitting_norm(*feats, num_iters=40), transmitting_norm(*feats[::-1], num_iters=40)
    assert torch.allclose(forth, back, rtol=1e-5)


def test_wider_of_two_types_is_kept():
    feats = noise(2, 4, 4, 4, 0, torch.float16), noise(2, 5, 4, 4, 1, torch.float64)
    assert transmitting_norm(*feats).dtype == torch.float64


def test_eigenvector_is_detached_and_of_length_one():
    matrix = torch.diag(torch.tensor([1.0, 0.5, 0.1])).requires_grad_()
    vector = leading_eigenvector(lambda row: row @ matrix, torch.ones(1, 1, 3), num_iters=3)
    assert not vector.requires_grad
    assert torch.allclose(vector.abs(), torch.tensor([[[1.0, 0.0, 0.0]]]), atol=1e-5)


# -------------------------------------------------------------------------------------------------------- operator norm


def test_vector_is_overwritten_in_place_with_the_singular_vector():
    layer, vector = nn.Linear(6, 4).double(), torch.ones(1, 6, dtype=torch.float64)
    address = vector.data_ptr()
    operator_norm(layer, (1, 6), num_iters=6, vector=vector)
    truth = torch.linalg.svd(layer.weight).Vh[0]
    assert vector.data_ptr() == address
    assert (vector[0] @ truth).abs().item() == pytest.approx(1, rel=1e-9)


def test_calling_leaves_no_gradients_behind():
    layer = nn.Conv2d(3, 4, 3)
    operator_norm(layer, (1, 3, 6, 6))
    assert layer.weight.grad is None and layer.bias.grad is None


def test_frozen_weights_and_no_grad():
    layer = nn.Linear(5, 3)
    value = operator_norm(layer, (1, 5))
    with torch.no_grad():
        assert torch.equal(operator_norm(layer, (1, 5)), value)
    frozen = operator_norm(layer.requires_grad_(False), (1, 5))
    assert torch.equal(frozen, value) and not frozen.requires_grad


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_weights_give_single(dtype):
    layer = nn.Linear(5, 3).to(dtype)
    try:
        layer(torch.ones(1, 5, dtype=dtype))
    except RuntimeError:
        pytest.skip('torch 2.1 and older have no products of float16 on CPUs')
    value = operator_norm(layer, (1, 5))
    assert value.dtype == torch.float32
    # the layer's own output is rounded to 8 bits in bfloat16, 2^-9 = 0.2 % an entry
    assert value.item() == pytest.approx(torch.linalg.matrix_norm(layer.weight.detach().double(), 2).item(), rel=1e-2)


def test_autocast_changes_nothing():
    layer = nn.Conv2d(3, 4, 3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = operator_norm(layer, (1, 3, 6, 6))
    assert torch.equal(value, operator_norm(layer, (1, 3, 6, 6)))


@given(factor=st.floats(1e-6, 1e4))
@settings(max_examples=50, deadline=None)
def test_norm_is_homogeneous(factor):
    """A bias-free layer times c stretches c times as much."""
    layer = nn.Linear(5, 3, bias=False).double()
    value = operator_norm(layer, (1, 5)).item()
    layer.weight.data *= factor
    assert operator_norm(layer, (1, 5)).item() == pytest.approx(factor * value, rel=1e-9)
