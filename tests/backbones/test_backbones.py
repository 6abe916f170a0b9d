"""Networks of the CIFAR experiments: sizes of the published table, stages, freezing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmlckd.backbones import CifarResNet, PyramidNet, WideResNet

# Parameters in millions with a 100-class head, from OFD's README, which cuts after the second decimal.
SIZES = [
    (lambda: WideResNet(28, 4), 256, 5.87),
    (lambda: WideResNet(16, 4), 256, 2.77),
    (lambda: WideResNet(28, 2), 128, 1.47),
    (lambda: WideResNet(16, 2), 128, 0.70),
    (lambda: CifarResNet(56), 64, 0.86),
    (lambda: PyramidNet(200, 240, bottleneck=True), 1024, 26.84),
    (lambda: PyramidNet(110, 84), 100, 3.91),
]
SMALL = [
    lambda **kwargs: WideResNet(10, 1, **kwargs),
    lambda **kwargs: PyramidNet(8, 6, **kwargs),
    lambda **kwargs: PyramidNet(11, 6, bottleneck=True, **kwargs),
    lambda **kwargs: CifarResNet(20, **kwargs),
]
NAMES = ['wide', 'pyramid', 'bottleneck', 'resnet']


@pytest.mark.parametrize('build, channels, millions', SIZES)
def test_parameters_of_the_published_table(build, channels, millions):
    backbone = build()
    head = 100 * (channels + 1)
    assert (sum(parameter.numel() for parameter in backbone.parameters()) + head) // 10_000 == round(100 * millions)
    backbone.eval()
    (last,) = backbone(torch.zeros(1, 3, 32, 32))
    assert last.shape == (1, channels, 8, 8)


@pytest.mark.parametrize('build', SMALL, ids=NAMES)
def test_stages_and_initialisation(build):
    backbone = build(out_indices=(0, 1, 2))
    backbone.init_weights()
    maps = backbone(torch.randn(2, 3, 16, 16))
    assert [feat.shape[2] for feat in maps] == [16, 8, 4]
    assert maps[2].min() == 0  # after a ReLU
    conv = backbone.conv1
    # The error of a standard deviation from n draws is 1 / sqrt(2 n) of it: 3.4 % of 432, so 15 % is more than 4 sigma.
    assert conv.weight.std().item() == pytest.approx((2 / (9 * conv.out_channels)) ** 0.5, rel=0.15)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)


@pytest.mark.parametrize('build', SMALL, ids=NAMES)
def test_frozen_stages_stay_as_they_are(build):
    resnet = build is SMALL[3]
    backbone = build(frozen_stages=2 if resnet else 1)  # a ResNet's stage 0 is its stem, so its stage 2 is layer2
    backbone.train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    sum(feat.sum() for feat in backbone(torch.randn(4, 3, 16, 16))).backward()
    changed = {key.split('.')[0] for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    trained = {key.split('.')[0] for key, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert changed == trained == ({'layer3'} if resnet else {'layer3', 'bn'})


@pytest.mark.parametrize('build', SMALL, ids=NAMES)
def test_norm_eval(build):
    backbone = build(norm_eval=True)
    backbone.train()
    assert not any(module.training for module in backbone.modules() if isinstance(module, nn.BatchNorm2d))
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_a_pyramid_shortcut_is_the_input_averaged_and_padded_with_zeros():
    block = PyramidNet(8, 6).layer2[0].eval()
    nn.init.zeros_(block.bn3.weight)  # the residual branch is silent
    x = torch.randn(1, 18, 6, 6)
    out = block(x)
    assert torch.allclose(out[:, :18], nn.functional.avg_pool2d(x, 2)) and not out[:, 18:].any()


@pytest.mark.parametrize(
    'build, message',
    [
        (lambda: WideResNet(17), 'depth is 17: WideResNet needs 6 n'),
        (lambda: PyramidNet(112, 84, bottleneck=True), r'depth is 112: PyramidNet needs 9 n \+ 2'),
        (lambda: PyramidNet(110, 0), 'alpha is 0'),
        (lambda: WideResNet(10, out_indices=(3,)), 'stages are 0, 1 and 2'),
        (lambda: PyramidNet(8, 6, frozen_stages=3), 'frozen_stages 3'),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
