"""First derivatives in reverse and in forward mode; second derivatives raise, however they are taken."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as fwd
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp

from mmlckd.functional import transmitting_norm

pytestmark = pytest.mark.usefixtures('both_ways')

MAPS = {
    'iteration': ((2, 36, 6, 6), (2, 40, 6, 6)),
    'matrix': ((2, 6, 5, 5), (2, 4, 5, 5)),
    'gram': ((2, 9, 2, 2), (2, 8, 2, 2)),
    'first pooled': ((2, 6, 6, 6), (2, 5, 3, 2)),
    'second pooled': ((2, 6, 3, 2), (2, 5, 6, 6)),
    'both pooled, unevenly': ((2, 6, 7, 3), (2, 5, 4, 5)),
    'tokens': ((2, 9, 6), (2, 9, 5)),
    'tokens and a map': ((2, 9, 6), (2, 5, 3, 3)),
}


def maps(sizes, offset=0, dtype=torch.float64):
    generators = [torch.Generator().manual_seed(seed + offset) for seed in (0, 1)]
    return [torch.rand(shape, generator=generator, dtype=dtype) for shape, generator in zip(sizes, generators)]


def norm(center):
    return lambda *feats: transmitting_norm(*feats, num_iters=40, center=center)


@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('sizes', MAPS.values(), ids=MAPS)
def test_both_modes_agree_with_finite_differences(sizes, center):
    feats = [feat[:1].requires_grad_() for feat in maps(sizes)]
    assert torch.autograd.gradcheck(norm(center), feats, atol=1e-6, check_forward_ad=True, fast_mode=True)


@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('sizes', MAPS.values(), ids=MAPS)
def test_every_way_to_ask_for_a_first_derivative(sizes, center):
    """<tangents, gradients> is the same number in forward mode, in reverse mode, and from either Jacobian."""
    feats, tangents = maps(sizes), maps(sizes, offset=2)
    value, change = jvp(norm(center), tuple(feats), tuple(tangents))
    assert torch.equal(value, norm(center)(*feats))
    _, pull_back = vjp(norm(center), *feats)
    tracked = [feat.clone().requires_grad_() for feat in feats]
    grads = torch.autograd.grad(norm(center)(*tracked).sum(), tracked)
    for gradients in (pull_back(torch.ones(2, dtype=torch.float64)), grads):
        together = sum((a * b).flatten(1).sum(1) for a, b in zip(gradients, tangents))
        assert torch.allclose(together, change, rtol=1e-9)
    with fwd.dual_level():
        dual = norm(center)(*(fwd.make_dual(feat, tangent) for feat, tangent in zip(feats, tangents)))
        assert torch.allclose(fwd.unpack_dual(dual).tangent, change, rtol=1e-12)
    for jacobian in (jacfwd, jacrev):
        rows = jacobian(norm(center), argnums=(0, 1))(*feats)
        assert torch.allclose(rows[0][0, 0], grads[0][0]) and torch.allclose(rows[1][1, 1], grads[1][1])
        assert (rows[0][0, 1] == 0).all()  # samples do not mix


@pytest.mark.parametrize('side', [0, 1])
def test_one_map_alone(side):
    feats, tangent = maps(MAPS['first pooled']), maps(MAPS['first pooled'], offset=2)[side]

    def alone(feat):
        return norm(True)(*(feat if i == side else other for i, other in enumerate(feats)))

    tracked = feats[side].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(alone(tracked).sum(), tracked)
    assert torch.allclose(jvp(alone, (feats[side],), (tangent,))[1].sum(), (gradient * tangent).sum())


def test_a_sample_that_is_left_out_has_no_derivative_in_either_mode():
    feats, tangents = maps(MAPS['matrix']), maps(MAPS['matrix'], offset=2)
    clean = jvp(norm(False), tuple(feats), tuple(tangents))[1]
    feats[0][0, 0, 0, 0] = torch.nan
    value, change = jvp(lambda *maps: norm(False)(*maps).nan_to_num(0.0), tuple(feats), tuple(tangents))
    assert value[0] == 0 and change[0] == 0 and torch.equal(change[1], clean[1])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_forward_mode_under_autocast(dtype):
    feats, tangents = maps(MAPS['first pooled'], dtype=dtype), maps(MAPS['first pooled'], 2, dtype)
    plain = jvp(norm(True), *(tuple(feat.float() for feat in feats) for feats in (feats, tangents)))[1]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value, change = jvp(norm(True), tuple(feats), tuple(tangents))
    assert value.dtype == change.dtype == torch.float32 and torch.equal(change, plain)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
def test_backward_under_autocast(dtype):
    grads = []
    for enabled in (False, True):
        feats = [feat.requires_grad_() for feat in maps(MAPS['both pooled, unevenly'], dtype=dtype)]
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=enabled):
            norm(True)(*feats).sum().backward()
        grads.append([feat.grad for feat in feats])
    assert all(torch.equal(one, other) for one, other in zip(*grads))


# -------------------------------------------------------------------------------------------------- second derivatives


def total(feats, center=False):
    return norm(center)(*feats).sum()


def double_backward(feats):
    grads = torch.autograd.grad(total(feats), feats, create_graph=True)
    torch.autograd.grad(sum(grad.square().sum() for grad in grads), feats)


def double_backward_of_a_later_loss(feats):
    """A gradient penalty on the images, with the maps a function of them."""
    images = torch.ones(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(total([feat * images for feat in feats]), images, create_graph=True)
    slope.square().sum().backward()


def dual_over_backward(feats):
    with fwd.dual_level():
        duals = [fwd.make_dual(feat, torch.ones_like(feat)) for feat in feats]
        torch.autograd.grad(total(duals), duals)


def backward_over_dual(feats):
    with fwd.dual_level():
        dual = total([fwd.make_dual(feat, torch.ones_like(feat)) for feat in feats])
        fwd.unpack_dual(dual).tangent.backward()


def forward_over_reverse(feats):
    jvp(grad(lambda first: total([first, feats[1]])), (feats[0],), (feats[0],))


def forward_over_forward(feats):
    def slope(*feats):
        return jvp(lambda *feats: total(feats), feats, tuple(feats))[1]

    jvp(slope, tuple(feats), tuple(feats))


def reverse_over_forward(feats):
    grad(lambda first: jvp(lambda *feats: total(feats), (first, feats[1]), tuple(feats))[1])(feats[0])


def one_map_in_each_mode(feats):
    """The mixed second derivative: the gradient in the first map, changed along the second one."""
    jvp(lambda second: grad(lambda first: total([first, second]))(feats[0]), (feats[1],), (feats[1],))


SECOND = [
    double_backward,
    double_backward_of_a_later_loss,
    dual_over_backward,
    backward_over_dual,
    forward_over_reverse,
    forward_over_forward,
    reverse_over_forward,
    one_map_in_each_mode,
    lambda feats: hessian(lambda first: total([first, feats[1]]))(feats[0]),
    lambda feats: jacrev(jacrev(lambda first: total([first, feats[1]])))(feats[0]),
    lambda feats: torch.autograd.functional.hessian(lambda first: total([first, feats[1]]), feats[0]),
    lambda feats: torch.autograd.functional.hvp(lambda *feats: total(feats), tuple(feats), tuple(feats)),
]


@pytest.mark.parametrize('name', ['matrix', 'iteration', 'first pooled', 'tokens'])
@pytest.mark.parametrize('second_derivative', SECOND)
def test_second_derivatives_raise(second_derivative, name):
    feats = [feat[:1, :4].requires_grad_() for feat in maps(MAPS[name])]
    with pytest.raises(RuntimeError, match='transmitting_norm has first derivatives only'):
        second_derivative(feats)


def test_a_graph_of_the_gradient_that_nobody_uses_is_no_trouble():
    feats = [feat.requires_grad_() for feat in maps(MAPS['matrix'])]
    grads = torch.autograd.grad(total(feats), feats, create_graph=True)
    assert torch.allclose(grads[0], torch.autograd.grad(total(feats), feats[0])[0])
