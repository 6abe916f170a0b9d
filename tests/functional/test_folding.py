"""Connected maps that are not formed, against the convolution and the batch norm that form them."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import jvp

from mmlckd.functional import AffineMap, affine_map, folded, partial_squared_distance, transmitting_norm
from mmlckd.functional.folding import pays

pytestmark = pytest.mark.usefixtures('both_ways')

SHAPES = [(3, 4, 7, (5, 6)), (1, 9, 5, (8, 8)), (2, 3, 40, (16,)), (5, 1, 2, (3, 3)), (2, 6, 6, (1, 9))]


def batch_norm(channels, training=True, dtype=torch.float64):
    norm = nn.BatchNorm2d(channels).to(dtype).train(training)
    with torch.no_grad():
        norm.weight.uniform_(-2, 2)
        for values in (norm.bias, norm.running_mean):
            values.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


def formed(feat, weight, norm):
    """What the two modules give."""
    maps = feat.mT.unsqueeze(2) if feat.dim() == 3 else feat
    maps = norm(F.conv2d(maps, weight.unflatten(1, (-1, 1, 1))))
    return maps.squeeze(2).mT if feat.dim() == 3 else maps


def draw(batch, channels, out, grid, dtype=torch.float64):
    """A map (or tokens, on a grid of one axis), a weight, and a target of the connected map's shape."""
    size, aim = ((channels, *grid), (out, *grid)) if len(grid) == 2 else ((*grid, channels), (*grid, out))
    feat = 2 * torch.randn(batch, *size, dtype=dtype) + 3
    return feat, torch.randn(out, channels, dtype=dtype), torch.randn(batch, *aim, dtype=dtype)


def with_gradients(value, *leaves):
    return [value.detach(), *torch.autograd.grad(value, leaves, allow_unused=True)]


@pytest.mark.parametrize('part', [7, 64, 2**18])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('shape', SHAPES)
def test_distance_gradients_and_statistics_are_those_of_the_modules(shape, training, part, monkeypatch):
    monkeypatch.setattr(affine_map, '_CPU_PART', part)
    torch.manual_seed(0)
    feat, weight, target = draw(*shape)
    one = batch_norm(len(weight), training)
    other = copy.deepcopy(one)
    results = []
    for connect, norm in ((folded, one), (formed, other)):
        leaves = [feat.clone().requires_grad_(), weight.clone().requires_grad_(), norm.weight, norm.bias]
        distance, finite = partial_squared_distance(connect(*leaves[:2], norm), target.clone())
        assert finite.all()
        results.append(with_gradients(1.7 * distance, *leaves))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(one.state_dict(), other.state_dict())


@pytest.mark.parametrize('center', [True, False])
@pytest.mark.parametrize('sides', ['both', 'first', 'second'])
@pytest.mark.parametrize(
    'one, other',
    [
        ((2, 4, 7, (6, 6)), (2, 5, 9, (6, 6))),  # of rank at most 32
        ((3, 8, 70, (12, 12)), (3, 36, 40, (6, 6))),  # pooled
        ((1, 40, 50, (14, 14)), (1, 45, 80, (7, 7))),  # pooled, by the iteration
        ((2, 40, 10, (7, 7)), (2, 6, 90, (7, 7))),  # to fewer channels, so that nothing is rotated
        ((2, 5, 9, (16,)), (2, 6, 4, (16,))),  # tokens
    ],
)
def test_norms_and_their_gradients_are_those_of_the_modules(one, other, sides, center):
    torch.manual_seed(1)
    drawn = [draw(*one)[:2], draw(*other)[:2]]
    norms = [batch_norm(len(weight)) for _, weight in drawn]
    results = []
    for connect in (folded, formed):
        leaves = [value.clone().requires_grad_() for pair in drawn for value in pair]
        leaves += [norm.weight for norm in norms] + [norm.bias for norm in norms]
        maps = [
            (connect if sides in ('both', side) else formed)(*leaves[2 * i : 2 * i + 2], norm)
            for i, (side, norm) in enumerate(zip(('first', 'second'), norms))
        ]
        results.append(with_gradients(transmitting_norm(*maps, num_iters=60, center=center).log().sum(), *leaves))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('center', [True, False])
@pytest.mark.parametrize('shape', [(2, 4, 6, (3, 3)), (2, 4, 6, (9,)), (2, 6, 3, (4, 4))])
def test_the_norm_is_differentiable_in_each_part_of_an_affine_map(shape, center):
    torch.manual_seed(2)
    feat, weight, target = draw(*shape)
    leaves = [feat, weight, torch.randn(weight.shape[1]).double(), torch.randn(len(weight)).double(), target]

    def norm(feat, weight, mean, bias, other):
        return transmitting_norm(AffineMap(feat, weight, mean, bias), other, center=center)

    assert torch.autograd.gradcheck(norm, [leaf.requires_grad_() for leaf in leaves])


def test_forward_mode_in_the_weight_is_refused():
    feat, weight, other = draw(2, 5, 3, (4, 4))
    with pytest.raises(RuntimeError, match='reverse mode only'):
        jvp(
            lambda weight: transmitting_norm(AffineMap(feat, weight, feat.mean((0, 2, 3)), weight[:, 0]), other),
            (weight,),
            (weight,),
        )


def test_the_distance_is_differentiable_in_each_part_of_an_affine_map():
    torch.manual_seed(3)
    feat, weight, target = draw(2, 3, 5, (4, 3))
    leaves = [feat, weight, torch.randn(3).double(), torch.randn(5).double()]

    def distance(*parts):
        return partial_squared_distance(AffineMap(*parts), target.clone())[0]

    assert torch.autograd.gradcheck(distance, [leaf.requires_grad_() for leaf in leaves])


LAYOUTS = dict(
    transposed=lambda feat: feat.transpose(2, 3).contiguous().transpose(2, 3),
    channels_last=lambda feat: feat.contiguous(memory_format=torch.channels_last),
    sliced=lambda feat: feat.repeat_interleave(2, 3)[..., ::2],
    expanded=lambda feat: feat[:, :, :1].expand_as(feat),
    batch_second=lambda feat: feat.transpose(0, 1).contiguous().transpose(0, 1),
)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_gradients_do_not_depend_on_the_layout_in_memory(layout):
    torch.manual_seed(6)
    feat, weight, target = draw(3, 4, 7, (5, 6))
    odd, norm, found = LAYOUTS[layout](feat), batch_norm(len(weight)), []
    for feat in (odd, odd.clone(memory_format=torch.contiguous_format)):
        feat = feat.requires_grad_()
        distance, _ = partial_squared_distance(folded(feat, weight, copy.deepcopy(norm)), target.clone())
        found.append(torch.autograd.grad(distance, feat)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize('shape', SHAPES)
def test_dense_is_the_map(shape):
    torch.manual_seed(4)
    feat, weight, _ = draw(*shape)
    norm = batch_norm(len(weight), training=False)
    connected = folded(feat, weight, norm)
    torch.testing.assert_close(connected.dense(), formed(feat, weight, norm))
    assert connected.shape == connected.dense().shape and len(connected) == len(feat)
    assert connected.dim() == feat.dim() and connected.dtype == torch.float64


def test_far_from_zero_no_digits_are_lost():
    # Means of 1,000 standard deviations, in single precision, against the modules in double precision.
    torch.manual_seed(5)
    feat = (torch.randn(4, 6, 8, 8) + 1000 * torch.randn(6, 1, 1)).requires_grad_()
    weight, target, norm = torch.randn(9, 6), torch.randn(4, 9, 8, 8), batch_norm(9, dtype=torch.float32)
    twin, wide = copy.deepcopy(norm).double(), feat.detach().double().requires_grad_()
    distance, _ = partial_squared_distance(folded(feat, weight, norm), target.clone())
    expected, _ = partial_squared_distance(formed(wide, weight.double(), twin), target.double())
    assert distance.item() == pytest.approx(expected.item(), rel=1e-4)
    ours, theirs = torch.autograd.grad(distance, feat)[0].double(), torch.autograd.grad(expected, wide)[0]
    assert (ours - theirs).norm() < 1e-3 * theirs.norm()


def test_a_channel_without_variance_is_its_bias():
    torch.manual_seed(6)
    feat = torch.randn(3, 4, 5, 5).requires_grad_()
    weight, norm = torch.randn(3, 4), batch_norm(3, dtype=torch.float32)
    weight[1] = 0
    connected = folded(feat, weight.requires_grad_(), norm)
    torch.testing.assert_close(connected.dense()[:, 1], norm.bias[1].expand(3, 5, 5))
    distance, _ = partial_squared_distance(connected, torch.randn(3, 3, 5, 5))
    norms = transmitting_norm(connected, connected, center=True)
    for grad in torch.autograd.grad(distance + norms.sum(), (feat, weight, norm.weight)):
        assert grad.isfinite().all()


def test_one_position_in_all_is_refused_as_by_the_norm():
    feat, weight, norm = torch.randn(1, 2, 1, 1), torch.randn(3, 2), nn.BatchNorm2d(3)
    for connect in (folded, formed):
        with pytest.raises(ValueError, match='one position|more than 1 value'):
            connect(feat, weight, norm)


@pytest.mark.parametrize('momentum', [0.3, None])
def test_running_statistics_of_several_batches(momentum):
    torch.manual_seed(7)
    one = nn.BatchNorm2d(3, momentum=momentum).double()
    other = copy.deepcopy(one)
    weight = torch.randn(3, 2, dtype=torch.float64)
    for _ in range(3):
        feat = torch.randn(2, 2, 4, 4, dtype=torch.float64)
        folded(feat, weight, one)
        formed(feat, weight, other)
    torch.testing.assert_close(one.state_dict(), other.state_dict())


@pytest.mark.parametrize('part', [20, 2**18])  # in pieces, and whole
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), 1e30, 3e38])
def test_a_target_that_is_not_finite_is_left_out(bad, part, monkeypatch):
    monkeypatch.setattr(affine_map, '_CPU_PART', part)
    torch.manual_seed(8)
    feat, weight, target = draw(3, 2, 4, (5, 5), torch.float32)
    target[1, 2, 3, 3] = bad
    leaves = [feat.requires_grad_(), weight.requires_grad_(), torch.zeros(2), torch.zeros(4, requires_grad=True)]
    distance, finite = partial_squared_distance(AffineMap(*leaves), target.clone())
    others = AffineMap(leaves[0][[0, 2]], *leaves[1:])
    expected, _ = partial_squared_distance(others, target[[0, 2]])
    assert finite.tolist() == [True, False, True]
    wanted = (leaves[0], leaves[1], leaves[3])
    torch.testing.assert_close(with_gradients(distance, *wanted), with_gradients(expected, *wanted))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_maps_in_half_precision(dtype):
    torch.manual_seed(9)
    feat, weight, target = draw(2, 6, 12, (8, 8), torch.float32)
    feat = feat.to(dtype).requires_grad_()
    wide = feat.detach().double().requires_grad_()
    norm = batch_norm(12, dtype=torch.float32)
    connected = folded(feat, weight, norm)
    distance, _ = partial_squared_distance(connected, target.clone())
    expected, _ = partial_squared_distance(formed(wide, weight.double(), copy.deepcopy(norm).double()), target.double())
    assert distance.dtype == torch.float32 and distance.item() == pytest.approx(expected.item(), rel=1e-4)
    (grad,), (true,) = torch.autograd.grad(distance, feat, retain_graph=True), torch.autograd.grad(expected, wide)
    assert grad.dtype == dtype and (grad.double() - true).norm() < 0.01 * true.norm()
    narrow = transmitting_norm(connected, connected, center=True)
    assert narrow.dtype == torch.float32 and torch.autograd.grad(narrow.sum(), feat)[0].dtype == dtype


def test_under_autocast_products_are_in_half_precision():
    torch.manual_seed(10)
    feat, weight, target = draw(2, 6, 12, (8, 8), torch.float32)
    norm = batch_norm(12, dtype=torch.float32)
    results = []
    for enabled in (True, False):
        leaves = feat.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=enabled):
            distance, _ = partial_squared_distance(folded(*leaves, norm), target.clone())
        assert distance.dtype == torch.float32
        results.append(with_gradients(distance, *leaves))
    for half, full in zip(*results):
        assert 0 < (half - full).norm() < 0.02 * full.norm()


def test_folding_pays_where_positions_are_many():
    norm = nn.BatchNorm2d(3)
    assert pays(torch.empty(2, 8, 4, 4), norm) and not pays(torch.empty(1, 8, 4, 4), norm)
    assert pays(torch.empty(2, 16, 8), norm)  # tokens
    assert not pays(torch.empty(2, 8, 4, 4), nn.BatchNorm2d(3, affine=False))
    assert not pays(torch.empty(2, 8, 4, 4), nn.BatchNorm2d(3, track_running_stats=False))
    assert not pays(torch.empty(2, 8, 4, 4), nn.GroupNorm(1, 3))
