"""How many operations a transmitting norm starts on a GPU, where starting one takes longer than a small one itself."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from measure import operations

from mmlckd.functional import launches, transmitting_norm
from mmlckd.functional.affine_map import add_products
from mmlckd.functional.pooling import average_pool


@pytest.mark.parametrize(
    'batch, channels, most',
    [
        (2, 16, 130),  # exact in float64
        (2, 128, 130),
        (8, 512, 130),
        (8, 640, 310),  # squaring would cost more than the iteration
    ],
)
def test_a_transmitting_norm_starts_few_operations(monkeypatch, batch, channels, most):
    monkeypatch.setattr(launches, '_DEVICES', {'cpu'})
    feats = [torch.rand(batch, channels, size, size) for size in (12, 6)]
    assert operations(partial(transmitting_norm, *feats, center=True)) <= most


@pytest.mark.parametrize('size, grid', [((6, 4), (3, 2)), ((7, 5), (3, 2)), ((4, 9), (4, 3))])
def test_pooling_by_products_is_torchs(size, grid):
    feat = torch.rand(2, 3, *size, requires_grad=True)
    found, exact = average_pool(feat, grid), F.adaptive_avg_pool2d(feat, grid)
    torch.testing.assert_close(found, exact)
    weights = torch.rand_like(exact)
    torch.testing.assert_close(*(torch.autograd.grad((weights * value).sum(), feat) for value in (found, exact)))


def test_views_and_allocations_are_no_operations():
    feat = torch.rand(2, 3)
    assert operations(lambda: torch.empty_like(feat.T[:1])) == 0
    assert operations(lambda: (feat + 1).mul_(2).T) == 2


def test_products_of_all_samples_are_one(monkeypatch):
    left, right, total = torch.rand(64, 3, 5), torch.rand(64, 5, 4), torch.zeros(3, 4)
    add_products(total, left, right)
    monkeypatch.setattr(launches, '_DEVICES', {'cpu'})
    for by_mean in (False, True):
        found = torch.zeros(3, 4)
        assert operations(partial(add_products, found, left, right, by_mean)) <= 5
        torch.testing.assert_close(found, total)
