"""Operator norms against the explicit matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmlckd.functional import operator_norm
from mmlckd.functional.krylov import leading_eigenvector

LAYERS = [
    (lambda: nn.Linear(9, 7), (1, 9)),
    (lambda: nn.Conv2d(3, 5, 3, padding=1), (1, 3, 7, 6)),
    (lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1), (1, 3, 9, 8)),
    (lambda: nn.Conv2d(4, 6, 3, groups=2, dilation=2, padding=2), (1, 4, 8, 8)),
    (lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode='circular'), (1, 4, 6, 6)),
    (lambda: nn.Conv1d(3, 4, 3), (1, 3, 10)),
    (lambda: nn.ConvTranspose2d(3, 4, 2, stride=2), (1, 3, 4, 4)),
]


def explicit(module, shape):
    """The layer as a matrix, column by column; differentiable."""
    size = torch.Size(shape).numel()
    inputs = torch.eye(size, dtype=torch.float64).view(size, *shape[1:])
    columns = module(inputs) - module(torch.zeros(shape, dtype=torch.float64))
    return columns.flatten(1).T


@pytest.mark.parametrize('make, shape', LAYERS)
def test_svd_of_the_explicit_matrix(make, shape):
    module = make().double()
    truth = torch.linalg.matrix_norm(explicit(module, shape), 2)
    value = operator_norm(module, shape, num_iters=130)  # as many as inputs at most: exact
    assert value.dim() == 0
    assert torch.allclose(value, truth, rtol=1e-9)
    mine, theirs = (torch.autograd.grad(norm, module.weight)[0] for norm in (value, truth))
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    size=st.tuples(st.integers(5, 7), st.integers(5, 7)),
    seed=st.integers(0, 2**16),
)
def test_svd_of_random_convolutions(kernel, stride, padding, dilation, groups, size, seed):
    torch.manual_seed(seed)
    module = nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups).double()
    shape = (1, 2, *size)
    truth = torch.linalg.matrix_norm(explicit(module, shape), 2)
    assert torch.allclose(operator_norm(module, shape, num_iters=100), truth, rtol=1e-9)  # 98 inputs at most: exact


def test_identity_and_mean():
    """A 1 x 1 identity kernel has norm 1; a circular k x k box of ones has its sum, k^2, at frequency zero."""
    identity = nn.Conv2d(3, 3, 1, bias=False)
    identity.weight.data = torch.eye(3)[:, :, None, None]
    assert operator_norm(identity, (1, 3, 5, 5)).item() == pytest.approx(1.0, rel=1e-6)
    box = nn.Conv2d(1, 1, 3, padding=1, padding_mode='circular', bias=False)
    nn.init.ones_(box.weight)
    assert operator_norm(box, (1, 1, 6, 6)).item() == pytest.approx(9.0, rel=1e-5)


def test_not_the_norm_of_the_reshaped_kernel():
    """The box above reshaped to a row has norm sqrt(9) = 3, a third of the operator's."""
    box = nn.Conv2d(1, 1, 3, padding=1, padding_mode='circular', bias=False)
    nn.init.ones_(box.weight)
    assert torch.linalg.matrix_norm(box.weight.flatten(1), 2).item() == pytest.approx(3.0)
    assert operator_norm(box, (1, 1, 6, 6)) > 8.9


def test_warm_start_converges_over_calls():
    module, shape = nn.Conv2d(4, 8, 3, padding=1).double(), (1, 4, 8, 8)
    truth = torch.linalg.matrix_norm(explicit(module, shape), 2).item()
    vector = torch.randn(shape, dtype=torch.float64)
    errors = [abs(operator_norm(module, shape, num_iters=2, vector=vector).item() - truth) / truth for _ in range(80)]
    assert errors[-1] < 1e-4 < errors[0]
    assert vector.norm().item() == pytest.approx(1.0)
    zero = torch.zeros(shape, dtype=torch.float64)  # as a fresh buffer is
    assert operator_norm(module, shape, vector=zero) > 0 and zero.norm().item() == pytest.approx(1.0)


def test_convergence_takes_the_memory_of_ten_iterations(monkeypatch):
    module, shape = nn.Conv2d(4, 8, 3, padding=1).double(), (1, 4, 10, 10)
    truth = torch.linalg.matrix_norm(explicit(module, shape), 2).item()
    # its top singular values crowd: ten iterations are not enough
    assert operator_norm(module, shape, 10).item() < truth * (1 - 2e-4)
    steps = []

    def counted(operator, start, num_iters):
        steps.append(num_iters)
        return leading_eigenvector(operator, start, num_iters)

    monkeypatch.setitem(operator_norm.__globals__, 'leading_eigenvector', counted)
    vector = torch.zeros(shape, dtype=torch.float64)
    assert truth * (1 - 1e-4) < operator_norm(module, shape, None, vector).item() <= truth * (1 + 1e-9)
    assert max(steps) == 10 and len(steps) > 1  # the basis holds as many inputs as it has steps
    assert torch.linalg.vector_norm(module(vector) - module(0 * vector)).item() > truth * (1 - 1e-4)


@pytest.mark.parametrize('num_iters', [20, None])
def test_zero_layer(num_iters):
    module = nn.Linear(3, 2)
    nn.init.zeros_(module.weight)
    value = operator_norm(module, (1, 3), num_iters)
    value.backward()
    assert value == 0 and module.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(input_shape=(2, 3)), 'one sample with its batch dimension'),
        (dict(input_shape=(3,)), 'one sample with its batch dimension'),
        (dict(input_shape=(1, 3), vector=torch.ones(1, 4)), 'vector has shape'),
    ],
)
def test_wrong_shapes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        operator_norm(nn.Linear(3, 2), **arguments)


def test_modules_and_counts_that_cannot_work():
    with pytest.raises(ValueError, match='AvgPool2d without parameters'):
        operator_norm(nn.AvgPool2d(2), (1, 1, 4, 4))
    with pytest.raises(ValueError, match='num_iters is 0'):
        operator_norm(nn.Linear(3, 2), (1, 3), num_iters=0)
