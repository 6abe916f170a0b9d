"""Sparse, rank-deficient, badly scaled and nearly orthogonal maps: values and gradients against a float64 SVD."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlckd.functional import singular_pair, transmitting_norm

pytestmark = pytest.mark.usefixtures('both_ways')

BATCH = 8  # cases in each example: the nightly profile's 2,000 examples are 16,000 cases


def sparse(channels, positions, share, floor, draw):
    """Rectified maps: a share of active entries, and a floor elsewhere."""
    active = draw.rand(BATCH, channels, positions) < share
    return draw.rand(BATCH, channels, positions).where(active, floor)


def low_rank(channels, positions, share, floor, draw):
    """Two patterns over positions, mixed into all channels."""
    return draw.randn(BATCH, channels, 2) @ draw.randn(BATCH, 2, positions)


def one_position(channels, positions, share, floor, draw):
    """All channels at one position, and hardly anything elsewhere."""
    feat = floor * draw.randn(BATCH, channels, positions)
    feat[:, :, int(share * positions)] += draw.rand(BATCH, channels)
    return feat


def scaled_channels(channels, positions, share, floor, draw):
    return sparse(channels, positions, share, floor, draw) * 10 ** (6 * draw.rand(BATCH, channels, 1) - 3)


def scaled_positions(channels, positions, share, floor, draw):
    return sparse(channels, positions, share, floor, draw) * 10 ** (6 * draw.rand(BATCH, 1, positions) - 3)


KINDS = {kind.__name__: kind for kind in (sparse, low_rank, one_position, scaled_channels, scaled_positions)}


class Draw:
    """Random tensors of one seed, in float64."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def rand(self, *shape):
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def randn(self, *shape):
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)


def orthogonal_but(overlap, channels, positions, draw):
    """Two maps that share no pattern over positions, but for ``overlap``: their norm is that part of their sizes'."""
    patterns = torch.linalg.qr(draw.randn(BATCH, positions, positions))[0]
    first = draw.randn(BATCH, channels[0], 1) @ patterns[:, :1]
    second = draw.randn(BATCH, channels[1], 1) @ patterns[:, 1:2]
    return first, second + overlap * draw.randn(BATCH, channels[1], 1) @ patterns[:, :1]


def svd(feats, center):
    """Top two singular values of F_in F_out^T / N and |F_in| |F_out| / N, of maps (B, C, H, W), in float64."""
    feats = [feat.double().flatten(2) for feat in feats]
    if center:
        feats = [feat - feat.mean(-1, keepdim=True) for feat in feats]
    values = torch.linalg.svdvals(feats[0] @ feats[1].mT / feats[0].shape[-1])
    values = torch.nn.functional.pad(values, (0, 1))  # a second one, zero, where there is one channel
    sizes = [torch.linalg.matrix_norm(feat) for feat in feats]
    return values[:, 0], values[:, 1], sizes[0] * sizes[1] / feats[0].shape[-1]


def worst_errors(feats, center):
    """Largest errors of value and gradient in units of what rounding leaves.

    M's entries are sums of N products, each rounded to eps of it. So M is off by eps |F_in| |F_out| / N =: eps size,
    and so is its norm. With centring the maps themselves are rounded at their means, and |F| is that of the raw maps.
    The singular vectors turn by at most eps size / (sigma_1 - sigma_2) (Wedin), and the gradient u (v^T F_out) / N by
    that part of |F_out| / N.
    """
    eps = torch.finfo(feats[0].dtype).eps
    ours = [feat.clone().requires_grad_() for feat in feats]
    exact = [feat.double().requires_grad_() for feat in feats]
    value, (truth, second, size) = transmitting_norm(*ours, center=center), svd(exact, center)
    _, _, raw_size = svd(feats, False)
    grads, true_grads = torch.autograd.grad(value.sum(), ours), torch.autograd.grad(truth.sum(), exact)
    assert value.isfinite().all() and all(grad.isfinite().all() for grad in grads)
    counted = size > 8 * eps * raw_size  # below, centred maps are rounding noise and count as constant
    value_error = ((value.double() - truth).abs() / (eps * raw_size))[counted]
    gap = truth.detach() - second.detach()
    gradient_errors = [torch.zeros(0, dtype=torch.float64)]
    for grad, true_grad, other in zip(grads, true_grads, reversed(feats)):
        error = torch.linalg.vector_norm((grad.double() - true_grad).flatten(1), dim=1)
        unit = torch.linalg.vector_norm(other.double().flatten(1), dim=1) / other[0, 0].numel()
        allowed = eps * (1 + raw_size / gap) * unit
        settled = counted & (gap > 1e-3 * truth.detach()) & (truth.detach() > 100 * eps * raw_size)
        gradient_errors.append((error / allowed)[settled])
    return value_error, torch.cat(gradient_errors)


def check(feats, center):
    value_error, gradient_error = worst_errors(feats, center)
    # Over 32,000 cases the largest were 19 and 7: a few roundings each. 1.0 is one rounding of every entry.
    assert not value_error.numel() or value_error.max() < 60
    assert not gradient_error.numel() or gradient_error.max() < 30


@given(
    kinds=st.tuples(*[st.sampled_from(sorted(KINDS))] * 2),
    channels=st.tuples(*[st.sampled_from([1, 3, 17, 64])] * 2),
    size=st.integers(2, 5),
    share=st.sampled_from([0.02, 0.1, 0.4]),
    floor=st.sampled_from([0.0, 1e-6, 1e-4, 1e-2]),
    scales=st.tuples(*[st.sampled_from([1e-4, 1.0, 1e4])] * 2),
    center=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_difficult_maps(kinds, channels, size, share, floor, scales, center, seed):
    draw = Draw(seed)
    feats = [
        (scale * KINDS[kind](count, size**2, share, floor, draw)).unflatten(2, (size, size)).float()
        for kind, count, scale in zip(kinds, channels, scales)
    ]
    check(feats, center)


@pytest.mark.parametrize('positions', [2, 4, 16, 25])
@given(
    exponent=st.floats(-5, 0),
    channels=st.tuples(*[st.sampled_from([1, 3, 17, 64])] * 2),
    seed=st.integers(0, 2**31),
)
def test_nearly_orthogonal_maps(positions, exponent, channels, seed):
    """Their Gram matrices in float32 would keep nothing of a norm below 3e-4 of the sizes'."""
    feats = orthogonal_but(10**exponent, channels, positions, Draw(seed))
    check([feat.unsqueeze(-1).float() for feat in feats], center=False)


def tiny_example(value, dtype, channels=3):
    feats = torch.zeros(2, 1, channels, 2, 1, dtype=dtype)
    feats[0, 0, 0, 0] = 1
    feats[1, 0, 0, 0], feats[1, 0, 0, 1] = value, 1
    return feats


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('channels', [1, 2, 3, 64])
@pytest.mark.parametrize('value', [1.0, 1e-2, 1e-4, 1e-8, 1e-12, 1e-18])
def test_maps_that_meet_where_one_is_small(value, channels, dtype):
    """M has one entry, 1 * value / 2. Its row (value, 1) . (1, 0) / 2: the gradient in the small map is 1 / 2 there."""
    feats = tiny_example(value, dtype, channels).requires_grad_()
    norm = transmitting_norm(*feats)
    (grad,) = torch.autograd.grad(norm.sum(), feats)
    assert norm.item() == pytest.approx(value / 2, rel=1e-5)
    assert grad[1, 0, 0].flatten().tolist() == pytest.approx([0.5, 0.0], rel=1e-5)
    assert grad[0, 0, 0].flatten().tolist() == pytest.approx([value / 2, 0.5], rel=1e-5)


@pytest.mark.parametrize('value', [1e-2, 1e-6, 1e-10])
def test_the_iteration_finds_small_norms_too(value):
    """As above over 36 positions and 64 channels, which is more than the exact path takes."""
    feat_in, feat_out = torch.zeros(2, 1, 64, 6, 6)
    feat_in[0, 0, 0, 0] = 1
    feat_out[0, :, 0, 0], feat_out[0, :, 0, 1] = value, 1  # M: one row of 64 entries value / 36
    assert transmitting_norm(feat_in, feat_out).item() == pytest.approx(8 * value / 36, rel=1e-5)


@pytest.mark.parametrize('scales', [(1e-12, 1e-12), (1e12, 1e12), (1e16, 1e16), (1e-16, 1e-16), (1e-16, 1e16)], ids=str)
@pytest.mark.parametrize('shape', [(1, 3, 4, 4), (1, 64, 4, 4), (1, 64, 7, 7), (1, 24, 7, 7)], ids=str)
@pytest.mark.parametrize('center', [False, True])
def test_scales_up_to_the_range_of_squares(scales, shape, center):
    """Float32 squares reach from 1e-38 to 3e38; |F| is at most sqrt(64 * 49) = 56 scales."""
    feat = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected = transmitting_norm(feat.double(), feat.double(), center=center).item() * scales[0] * scales[1]
    value = transmitting_norm(scales[0] * feat, scales[1] * feat, center=center)
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('scale, bad', [(1e-30, False), (1e-21, False), (1e19, True), (1e30, True)])
@pytest.mark.parametrize('shape', [(1, 3, 4, 4), (1, 64, 4, 4), (1, 64, 7, 7)], ids=str)
def test_squares_beyond_the_range(scale, bad, shape):
    """Too small counts as zero, too large as not a number, and neither has a gradient."""
    feats = (scale * torch.rand(shape, generator=torch.Generator().manual_seed(0))).requires_grad_(), torch.rand(shape)
    value = transmitting_norm(*feats)
    assert value.isnan() if bad else value == 0
    assert (torch.autograd.grad(value.sum(), feats[0])[0] == 0).all()


@pytest.mark.parametrize('side, channels', itertools.product([0, 1], [8, 48]))
def test_vectors_that_are_no_numbers_send_none_back(monkeypatch, side, channels):
    """Whatever goes wrong in the search, its sample is left out and the others stay as they are."""
    feats = [torch.rand(3, channels, 7, 7, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    for feat in feats:
        feat.requires_grad_()
    clean = transmitting_norm(*feats)
    clean_grads = torch.autograd.grad(clean.sum(), feats)
    searches = []

    def spoil(path, find):
        def spoiled(*args, **kwargs):
            searches.append(path)
            row = find(*args, **kwargs)
            row[1] = torch.nan
            return row

        monkeypatch.setattr(singular_pair, path, spoiled)

    for path in ('dominant_row', 'leading_eigenvector'):
        spoil(path, getattr(singular_pair, path))
    value = transmitting_norm(*(feats if side else feats[::-1]))
    grads = torch.autograd.grad(value.where(value.isfinite(), 0.0).sum(), feats)
    assert len(searches) == 1
    assert value[1].isnan() and torch.allclose(value[[0, 2]], clean[[0, 2]], rtol=1e-5)
    for grad, clean_grad in zip(grads, clean_grads):
        assert (grad[1] == 0).all()
        assert torch.allclose(grad[[0, 2]], clean_grad[[0, 2]], rtol=1e-3, atol=1e-6)
