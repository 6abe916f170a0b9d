"""Which test images a study changes, attacks and differentiates at."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch

from mmlckd.study import measuring


@pytest.mark.parametrize('labels', [torch.arange(2000) % 10, torch.arange(2000) // 200], ids=['in turns', 'sorted'])
def test_every_part_of_the_test_set_has_all_classes(labels, monkeypatch):
    images, drawn = labels.float().view(-1, 1, 1, 1), {}  # an image's one pixel is its class

    def accuracies(function, batches, strengths):
        parts = [torch.cat(part) for part in zip(*batches)]
        assert torch.equal(parts[0].flatten().long(), parts[1])
        drawn.update(dict.fromkeys(strengths, parts[1]))
        return {kind: [0.0] * len(values) for kind, values in strengths.items()}

    def constants(function, points):
        drawn['local'] = points.flatten().long()
        return points.flatten()

    view = SimpleNamespace(
        images=images.split(200), labels=labels.split(200), function=lambda x: x.new_zeros(len(x), 10)
    )
    monkeypatch.setattr(measuring, 'pixel_view', lambda *_: view)
    monkeypatch.setattr(measuring, 'evaluating', contextlib.nullcontext)
    monkeypatch.setattr(measuring, 'robust_accuracy', accuracies)
    monkeypatch.setattr(measuring, 'local_lipschitz', constants)
    measuring._classified(SimpleNamespace(model=None, test_dataloader=[]), measuring.CLASSIFIED)
    assert set(drawn) == {*measuring.CLASSIFIED, 'local'}
    for kind, classes in drawn.items():
        assert set(classes.tolist()) == set(range(10)), kind
