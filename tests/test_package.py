"""Versions, registries, the backbone's sizes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import mmlckd
from mmlckd.registry import HOOKS, MODELS


@pytest.mark.parametrize(
    'version, works', [('2.5.1', False), ('2.6.0', True), ('2.10.0+cu128', True), ('2.11.0', False)]
)
def test_versions_that_cannot_work_are_refused(version, works):
    package = SimpleNamespace(__name__='torch', __version__=version)
    if works:
        mmlckd._check_versions([(package, '2.6.0', '2.11.0')])
    else:
        with pytest.raises(ImportError, match=f'needs torch >=2.6.0,<2.11.0 and found {version}'):
            mmlckd._check_versions([(package, '2.6.0', '2.11.0')])


def test_registered_names():
    for name in ('LipschitzKDLoss', 'OFDLoss', 'LogitsKDLoss', 'LipschitzDistiller', 'WideResNet'):
        assert MODELS.get(f'mmlckd.{name}') is not None
    for name in ('SpectralNormHook', 'RandomStateHook'):
        assert HOOKS.get(f'mmlckd.{name}') is not None


# Parameters in millions with a 100-class head, from OFD's table, which cuts after two digits (WRN-28-2 has 1,479,220)
@pytest.mark.parametrize('depth, width, millions', [(28, 4, 5.87), (16, 4, 2.77), (28, 2, 1.47), (16, 2, 0.70)])
def test_wide_resnet_sizes(depth, width, millions):
    backbone = MODELS.build(dict(type='mmlckd.WideResNet', depth=depth, widen_factor=width))
    count = sum(parameter.numel() for parameter in backbone.parameters()) + 64 * width * 100 + 100
    assert int(count / 1e4) == round(millions * 100)


def test_wide_resnet_stages():
    import torch

    backbone = MODELS.build(
        dict(type='mmlckd.WideResNet', depth=10, out_indices=(0, 1, 2), frozen_stages=1, norm_eval=True)
    ).train()
    shapes = [tuple(out.shape) for out in backbone(torch.zeros(1, 3, 32, 32))]
    assert shapes == [(1, 16, 32, 32), (1, 32, 16, 16), (1, 64, 8, 8)]  # strides 1, 2, 2; 16, 32, 64 channels
    trained = {name.split('.')[0] for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trained == {'layer3', 'bn'}
    assert not backbone.bn.training
    with pytest.raises(ValueError, match='depth is 11'):
        MODELS.build(dict(type='mmlckd.WideResNet', depth=11))
