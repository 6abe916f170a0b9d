"""The iteration behind both norms, against dense eigensolvers."""

from __future__ import annotations

import pytest
import torch

from mmlckd.functional.krylov import leading_eigenvector


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
