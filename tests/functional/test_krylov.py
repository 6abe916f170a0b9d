"""The iteration behind both norms, against dense eigensolvers."""

from __future__ import annotations

import pytest
import torch

from mmlckd.functional.krylov import dominant_row, leading_eigenvector


def spd(batch, size, seed=0):
    factor = torch.randn(batch, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix = factor @ factor.mT
    return matrix / torch.linalg.matrix_norm(matrix, 2)[:, None, None]


def rows(batch, size):
    return torch.ones(batch, 1, size, dtype=torch.float64)


def test_top_eigenvector_of_dense_matrices():
    matrix = spd(3, 12)
    vector = leading_eigenvector(lambda row: row @ matrix, rows(3, 12), num_iters=12)
    truth = torch.linalg.eigh(matrix).eigenvectors[:, :, -1]
    assert torch.allclose((vector[:, 0] * truth).sum(-1).abs(), torch.ones(3, dtype=torch.float64), atol=1e-9)


def test_more_steps_than_dimensions_change_nothing():
    matrix = spd(2, 4)
    short, long = (leading_eigenvector(lambda row: row @ matrix, rows(2, 4), num_iters=steps) for steps in (4, 40))
    assert torch.equal(short, long)


def test_better_than_power_iteration_where_the_gap_is_small():
    values = torch.linspace(0.5, 1, 50, dtype=torch.float64)  # the top two differ by 1 %
    matrix = torch.diag(values)[None]
    vector = leading_eigenvector(lambda row: row @ matrix, rows(1, 50), num_iters=10)
    power = rows(1, 50)
    for _ in range(10):
        power = torch.nn.functional.normalize(power @ matrix, dim=-1)
    error, power_error = (1 - (x @ matrix @ x.mT).item() for x in (vector, power))
    assert error < power_error / 5  # measured: about 1/10


def test_zero_start_gives_zero():
    matrix = spd(2, 5)
    start = rows(2, 5)
    start[1] = 0
    vector = leading_eigenvector(lambda row: row @ matrix, start, num_iters=3)
    assert vector[0].norm() > 0.99 and vector[1].norm() == 0


@pytest.mark.parametrize('scale', [1e-3, 1.0])
def test_invariant_subspace_is_no_trouble(scale):
    """A rank-one operator: after one step nothing is left to add to the basis."""
    direction = torch.nn.functional.normalize(torch.arange(1.0, 7.0), dim=0)
    matrix = scale * torch.outer(direction, direction)[None]
    vector = leading_eigenvector(lambda row: row @ matrix, torch.ones(1, 1, 6), num_iters=5)
    assert torch.allclose(vector.flatten().abs(), direction, atol=1e-5)


@pytest.mark.parametrize('scale', [1e-30, 1e-12, 1e12, 1e30])
def test_the_operators_scale_does_not_matter(scale):
    """Its values are squared; float32 ends at 1e-38 and 3e38."""
    matrix, start = spd(3, 12).float(), rows(3, 12).float()
    plain = leading_eigenvector(lambda row: row @ matrix, start, num_iters=12)
    scaled = leading_eigenvector(lambda row: scale * (row @ matrix), start, num_iters=12)
    assert torch.allclose(plain, scaled, atol=1e-5)


@pytest.mark.parametrize('dtype, ratio', [(torch.float32, 1e-6), (torch.float64, 1e-12), (torch.float64, 1e-50)])
def test_a_largest_eigenvalue_far_below_the_norm(dtype, ratio):
    """[[r, 0], [1, 0]] has norm 1 and the eigenvalues r and 0; the left eigenvector of r is (1, 0)."""
    matrix = torch.tensor([[[ratio, 0.0], [1.0, 0.0]]], dtype=dtype)
    assert dominant_row(matrix, together=2)[0, 0].abs().tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize('scale', [0.0, 1e-30, 1e30])
def test_small_matrices_of_any_scale(scale):
    values = torch.tensor([0.5, 1.0, 0.9])
    row = dominant_row(scale * torch.diag(values)[None])
    assert row[0, 0].tolist() == pytest.approx([0.0, float(scale > 0), 0.0], abs=1e-6)


@pytest.mark.parametrize('gap', [1e-2, 1e-4, 1e-6, 1e-8])
def test_close_eigenvalues_cost_less_than_a_millionth(gap):
    """2^20 squarings leave exp(-2^21 gap) of the second eigenvector's share; times the gap that is 2e-7 at most."""
    turn = torch.linalg.qr(torch.randn(50, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    values = torch.tensor([1.0, 1.0 - gap, *[0.5] * 6], dtype=torch.float64)
    matrix = turn @ torch.diag(values) @ turn.mT
    row = dominant_row(matrix)
    assert (row @ matrix @ row.mT).flatten().tolist() == pytest.approx([1.0] * 50, abs=1e-6)
