"""How many operations a transmitting norm starts on a GPU, where starting one takes longer than a small one itself."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from measure import operations

from mmlckd.functional import launches, transmitting_norm
from mmlckd.functional.affine_map import add_products


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
