"""Transmitting norms against closed forms and the singular value decomposition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mmlckd.functional import transmitting_norm

pytestmark = pytest.mark.usefixtures('both_ways')

FEW = ((2, 48, 4, 4), (2, 64, 4, 4))  # 16 positions and more channels: Gram matrices over positions
MANY = ((2, 6, 8, 8), (2, 5, 8, 8))  # 64 positions and fewer channels: M itself
SIZES = [
    FEW,
    MANY,
    ((2, 6, 8, 8), (2, 5, 4, 4)),
    ((2, 6, 4, 4), (2, 5, 8, 8)),
    ((2, 6, 7, 5), (2, 5, 3, 2)),
    ((2, 6, 4, 9), (2, 5, 8, 3)),
    ((2, 40, 8, 8), (2, 30, 2, 2)),
    ((1, 3, 1, 1), (1, 4, 1, 1)),
    ((2, 1, 6, 6), (2, 1, 3, 3)),
    ((2, 7, 10), (2, 7, 6)),
]


def correlated(shape, seed, dtype=torch.float64):
    """Rectified maps with a common part, so that the top singular value stands out as in a network."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(shape, generator=generator, dtype=dtype)
    return torch.relu(noise + torch.randn(shape[:1] + (1,) * (len(shape) - 1), generator=generator, dtype=dtype).abs())


def exact(feat_in, feat_out, center=False):
    """sigma_max(F_in F_out^T / N) by singular value decomposition, differentiable."""
    if feat_in.dim() == 4:
        grid = tuple(map(min, feat_in.shape[2:], feat_out.shape[2:]))
        feat_in, feat_out = (F.adaptive_avg_pool2d(feat, grid).flatten(2) for feat in (feat_in, feat_out))
    else:
        feat_in, feat_out = feat_in.mT, feat_out.mT
    if center:
        feat_in, feat_out = (feat - feat.mean(-1, keepdim=True) for feat in (feat_in, feat_out))
    return torch.linalg.matrix_norm(feat_in @ feat_out.mT / feat_in.shape[-1], 2)


def pair(sizes, dtype=torch.float64):
    return [correlated(shape, seed, dtype).requires_grad_() for seed, shape in enumerate(sizes)]


@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_value_and_gradient_of_the_svd(sizes, center):
    ours, truth = pair(sizes), pair(sizes)
    value, expected = transmitting_norm(*ours, num_iters=30, center=center), exact(*truth, center=center)
    assert value.shape == (sizes[0][0],)
    assert torch.allclose(value, expected, rtol=1e-9, atol=1e-14)
    if expected.min() > 1e-12:
        for mine, theirs in zip(torch.autograd.grad(value.sum(), ours), torch.autograd.grad(expected.sum(), truth)):
            assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6 * theirs.abs().max().item())


@pytest.mark.parametrize('sizes', [FEW, MANY], ids=['gram', 'explicit'])
def test_single_precision_at_the_default_iterations(sizes):
    ours = pair(sizes, torch.float32)
    truth = [feat.double().detach().requires_grad_() for feat in ours]
    value, expected = transmitting_norm(*ours), exact(*truth)
    assert torch.allclose(value.double(), expected, rtol=1e-5)
    gradients = []
    for result, feats in ((value, ours), (expected, truth)):
        parts = torch.autograd.grad(result.sum(), feats)
        gradients.append(torch.cat([part.flatten().double() for part in parts]))
    assert F.cosine_similarity(*gradients, dim=0) >= 0.9999


@pytest.mark.parametrize('sizes', [((2, 64, 28, 28), (2, 128, 14, 14)), ((2, 256, 14, 14), (2, 512, 7, 7))])
@pytest.mark.parametrize('num_iters, tolerance', [(10, 0.1), (30, 1e-4)])
def test_independent_noise_is_the_hardest_case(sizes, num_iters, tolerance):
    """Singular values crowd at the top, so ten products do not settle the vector.

    Measured over many draws, the error was up to 7e-2, and 2e-6 with 30 products.
    """
    feats = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed, shape in enumerate(sizes)]
    expected = exact(*(feat.double() for feat in feats))
    assert torch.allclose(transmitting_norm(*feats, num_iters=num_iters).double(), expected, rtol=tolerance)


def test_diagonal_matrix():
    """F_in = I and F_out = N diag(d) give M = diag(d), whose norm is the largest |d|."""
    values = torch.tensor([0.5, -3.0, 2.0, 1.0])
    feat_in, feat_out = torch.eye(4).view(1, 4, 2, 2), (4 * torch.diag(values)).view(1, 4, 2, 2)
    assert transmitting_norm(feat_in, feat_out).item() == pytest.approx(3.0, rel=1e-6)


def test_rank_one_matrix():
    """F_in = a p^T and F_out = b q^T give M = a b^T (p . q) / N, of norm |a| |b| |p . q| / N."""
    a, b, p, q = (torch.randn(size, generator=torch.Generator().manual_seed(size)) for size in (3, 5, 9, 9))
    feat_in, feat_out = torch.outer(a, p).view(1, 3, 3, 3), torch.outer(b, q + 1).view(1, 5, 3, 3)
    expected = a.norm() * b.norm() * (p @ (q + 1)).abs() / 9
    assert transmitting_norm(feat_in, feat_out).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('sizes', [FEW, MANY, SIZES[2], SIZES[4]], ids=str)
def test_gradcheck(sizes, center):
    feats = [feat.detach()[:1, :6].requires_grad_() for feat in pair(sizes)]
    assert torch.autograd.gradcheck(
        lambda *maps: transmitting_norm(*maps, num_iters=30, center=center), feats, atol=1e-6
    )


def test_centring_forgets_an_offset():
    feat_in, feat_out = pair(MANY)
    moved = transmitting_norm(feat_in + 5, feat_out - 3, center=True)
    assert torch.allclose(moved, transmitting_norm(feat_in, feat_out, center=True), rtol=1e-10)


@pytest.mark.parametrize(
    'channels, positions',
    [((128, 64), 16), ((64, 128), 16), ((96, 64), 6), ((900, 900), 32)],
    ids=['matrix', 'swapped', 'gram', 'maps'],
)
def test_centring_far_from_zero(channels, positions):
    torch.manual_seed(0)
    # eight patterns under all channels, as in networks' features
    base = torch.randn(4, 8, positions, positions, dtype=torch.float64)
    maps = []
    for count in channels:
        mixed = torch.einsum('ck,bkhw->bchw', torch.randn(count, 8, dtype=torch.float64), base)
        maps.append(mixed + 1000 * torch.randn(count, 1, 1, dtype=torch.float64))
    exact = transmitting_norm(*maps, center=True)
    # rounding to 24 bits at a mean of some 1000 / sqrt(8) standard deviations: 6e-8 * 350 a number, averaged over many
    assert torch.allclose(transmitting_norm(*(feat.float() for feat in maps), center=True).double(), exact, rtol=2e-4)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.booleans())
@settings(max_examples=30, deadline=None)
def test_scaling_law(a, b, center):
    feat_in, feat_out = pair(FEW)
    scaled = transmitting_norm(a * feat_in, b * feat_out, center=center)
    assert torch.allclose(scaled, a * b * transmitting_norm(feat_in, feat_out, center=center), rtol=1e-8)


@given(
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    sizes=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    scales=st.tuples(*[st.sampled_from([0.0, 1e-6, 1e-3, 1.0, 1e4])] * 2),
    center=st.booleans(),
    constant=st.booleans(),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=150, deadline=None)
def test_always_finite_and_attached(batch, channels, sizes, scales, center, constant, seed):
    torch.manual_seed(seed)
    draw = torch.ones if constant else torch.randn
    feats = []
    for channel, size, scale in zip(channels, sizes, scales):
        feats.append((scale * draw(batch, channel, size, size)).requires_grad_())
    value = transmitting_norm(*feats, center=center)
    grads = torch.autograd.grad(value.sum(), feats)
    assert value.isfinite().all() and (value >= 0).all()
    assert all(grad.isfinite().all() for grad in grads)
    if 0.0 in scales or (center and (constant or 1 in sizes)):
        assert (value == 0).all() and all((grad == 0).all() for grad in grads)


def test_constant_offset_far_above_the_variation_counts_as_constant():
    feat = torch.full((1, 4, 6, 6), 1e4).requires_grad_()
    noisy = feat + 1e-4 * torch.randn_like(feat)  # below float32's resolution at 1e4
    value = transmitting_norm(noisy, noisy, center=True)
    assert value.item() == 0


def test_tokens_behind_a_layer_norm():
    """Their channels sum to zero, so a start from the matrix's column sums would find nothing."""
    tokens = F.layer_norm(correlated((2, 20, 8), 0), (8,))
    assert torch.allclose(transmitting_norm(tokens, tokens, num_iters=30), exact(tokens, tokens), rtol=1e-9)


def test_tokens_and_maps_with_as_many_positions_meet():
    feat = correlated((2, 5, 4, 4), 0)
    tokens = correlated((2, 16, 3), 1)
    expected = transmitting_norm(feat, tokens.mT.unflatten(2, (4, 4)))
    assert torch.allclose(transmitting_norm(feat, tokens), expected)


@pytest.mark.parametrize('layout', ['channels_last', 'transposed'])
def test_memory_layout_does_not_matter(layout):
    feat_in, feat_out = (feat.detach() for feat in pair(SIZES[2]))
    if layout == 'channels_last':
        other = feat_in.contiguous(memory_format=torch.channels_last)
    else:
        other = feat_in.mT.contiguous().mT
    assert torch.allclose(transmitting_norm(other, feat_out), transmitting_norm(feat_in, feat_out), rtol=1e-12)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    halves = [feat.detach().to(dtype) for feat in pair(MANY)]
    expected = transmitting_norm(*(feat.float() for feat in halves))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = transmitting_norm(*halves)
    assert value.dtype == torch.float32 and torch.equal(value, expected)


def test_feature_scale_that_overflows_half_precision():
    feat = torch.full((1, 64, 8, 8), 300.0, dtype=torch.float16)  # M = 300^2 ones(64, 64): norm 64 * 9e4 = 5.76e6
    assert transmitting_norm(feat, feat).item() == pytest.approx(5.76e6, rel=1e-5)


def test_nothing_of_the_size_of_the_channels_squared_is_built():
    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for result in out if isinstance(out, (tuple, list)) else [out]:
                if torch.is_tensor(result):
                    self.size = max(self.size, result.numel())
            return out

    feats = [torch.randn(1, 2048, 2, 2), torch.randn(1, 4096, 2, 2)]
    with Largest() as largest:
        transmitting_norm(*feats)
    # the maps have 4 positions and at most 4,096 channels; M would have 8,388,608 numbers
    assert largest.size <= 10 * 4096


@pytest.mark.parametrize(
    'sizes, message',
    [
        (((2, 3), (2, 3, 4, 4)), r'feat_in has shape \(2, 3\)'),
        (((2, 3, 4, 4), (3, 3, 4, 4)), 'feat_in holds 2 samples and feat_out 3'),
        (((2, 9, 4), (2, 8, 4)), 'feat_in has 9 positions and feat_out 8'),
    ],
)
def test_wrong_shapes_are_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        transmitting_norm(*map(torch.zeros, sizes))
