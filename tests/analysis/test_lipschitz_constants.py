"""Lower bound <= truth <= upper bound, and closed forms for each."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import init_default_scope
from torch import nn

from mmlckd.analysis import local_lipschitz, product_bound
from mmlckd.backbones import CifarResNet, PyramidNet, WideResNet
from mmlckd.backbones.pyramid_net import PyramidBlock
from mmlckd.registry import MODELS


def jacobian_norms(function, inputs):
    """sigma_max of the explicit Jacobian at each input."""
    norms = []
    for x in inputs:
        jacobian = torch.autograd.functional.jacobian(lambda x: function(x[None])[0].flatten(), x)
        norms.append(torch.linalg.matrix_norm(jacobian.flatten(1), 2))
    return torch.stack(norms)


def randomised(model, seed):
    """In evaluation mode and double precision, with batch norms as a training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    if hasattr(model, 'init_weights'):
        model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.data.uniform_(-0.5, 0.5, generator=generator)
    model.eval()  # mmpretrain's ResNet returns nothing here
    return model.double()


def test_two_linear_layers_have_the_norm_of_their_product():
    net = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 4)).double()
    truth = torch.linalg.matrix_norm(net[1].weight @ net[0].weight, 2)
    value = local_lipschitz(net, torch.randn(3, 6, dtype=torch.float64), num_iters=6)  # as many as inputs: exact
    assert torch.allclose(value, truth.expand(3), rtol=1e-9)
    bound = product_bound(net, lambda: net(torch.randn(1, 6, dtype=torch.float64))).value
    assert bound == pytest.approx(
        (torch.linalg.matrix_norm(net[0].weight, 2) * torch.linalg.matrix_norm(net[1].weight, 2)).item()
    )


def test_a_diagonal_jacobian_has_its_largest_entry():
    inputs = torch.tensor([[0.5, 1.0, 2.0], [0.1, 3.0, -1.0]], dtype=torch.float64)
    assert torch.allclose(local_lipschitz(torch.sin, inputs, num_iters=3), inputs.cos().abs().amax(1))


def test_samples_do_not_mix_and_the_value_comes_from_below():
    net = randomised(WideResNet(10), 0)
    inputs = torch.randn(3, 3, 8, 8, dtype=torch.float64)

    def function(x):
        return net(x)[-1]

    truth = jacobian_norms(function, inputs)
    few, many = (local_lipschitz(function, inputs, num_iters) for num_iters in (5, 40))
    assert (few <= many * (1 + 1e-9)).all() and torch.allclose(many, truth, rtol=1e-4)
    assert torch.allclose(local_lipschitz(function, inputs[1:2], 5), few[1:2])


@pytest.mark.parametrize(
    'exact, pool',
    [  # exact where windows do not overlap
        (True, nn.AvgPool2d(2)),
        (True, nn.AvgPool2d((2, 1))),
        (False, nn.AvgPool2d(3, 2)),
        (True, nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)),  # the last window is one pixel: 1, not 1 / 2
        (False, nn.AvgPool2d(3, 1, 1, count_include_pad=False)),  # windows at the border divide by fewer
        (True, nn.AvgPool2d(2, divisor_override=1)),  # sums of four: 2
        (True, nn.AdaptiveAvgPool2d(1)),
        (False, nn.AdaptiveAvgPool2d(3)),
    ],
)
def test_mean_poolings_against_their_matrices(exact, pool):
    columns = pool(torch.eye(49, dtype=torch.float64).view(49, 1, 7, 7)).flatten(1)
    truth = torch.linalg.matrix_norm(columns, 2).item()
    bound = product_bound(pool, lambda: pool(torch.zeros(1, 1, 7, 7))).value
    assert truth <= bound * (1 + 1e-6)
    if exact:
        assert bound == pytest.approx(truth)


@pytest.mark.parametrize('pool, windows', [(nn.MaxPool2d(3, 2, 1), 2 * 2), (nn.MaxPool2d(3, 2, 1, dilation=2), 3 * 3)])
def test_maximum_poolings_stretch_no_further(pool, windows):
    bound = product_bound(pool, lambda: pool(torch.zeros(1, 1, 9, 9))).value
    one, other = torch.randn(2, 500, 1, 9, 9)
    assert ((pool(one) - pool(other)).flatten(1).norm(dim=1) <= bound * (one - other).flatten(1).norm(dim=1)).all()
    spike = torch.zeros(1, 1, 9, 9)
    spike[..., 3, 3] = 1  # lies in so many windows: the bound is reached
    assert (pool(spike) - pool(0 * spike)).norm().item() == pytest.approx(bound) == pytest.approx(windows**0.5)


def test_a_shortcut_that_averages_an_odd_size():
    block = PyramidBlock(4, 6, 2, False).eval()
    nn.init.zeros_(block.bn3.weight)  # only the shortcut is left; its last window is one pixel, which passes whole
    assert product_bound(block, lambda: block(torch.zeros(1, 4, 13, 13))).value == pytest.approx(1)


def test_a_residual_block_adds_its_shortcut():
    net = randomised(CifarResNet(20), 1)
    block = net.layer1[0]
    x = torch.randn(1, 16, 6, 6, dtype=torch.float64)
    parts = [
        product_bound(part, lambda part=part: part(x)).value
        for part in (block.conv1, block.bn1, block.conv2, block.bn2)
    ]
    assert product_bound(block, lambda: block(x)).value == pytest.approx(parts[0] * parts[1] * parts[2] * parts[3] + 1)
    for part in parts:
        assert part > 0


NETS = [
    lambda: WideResNet(10),
    lambda: PyramidNet(8, 6),
    lambda: PyramidNet(11, 6, bottleneck=True),
    lambda: CifarResNet(20),
]


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(net=st.sampled_from(range(len(NETS))), seed=st.integers(0, 2**16))
def test_the_truth_lies_between_the_bounds(net, seed):
    torch.manual_seed(seed)
    model = randomised(NETS[net](), seed)
    inputs = torch.randn(1, 3, 8, 8, dtype=torch.float64)

    def function(x):
        return model(x)[-1]

    truth = jacobian_norms(function, inputs).item()
    assert local_lipschitz(function, inputs, 5).item() <= truth * (1 + 1e-9)
    bound = product_bound(model, lambda: function(inputs))
    assert not bound.unbounded and truth <= bound.value


def test_a_classifier_is_bounded_to_its_logits():
    init_default_scope('mmpretrain')
    __import__('mmpretrain.models')
    model = randomised(
        MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=dict(type='ResNet', depth=18, base_channels=16, stem_channels=16),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=5, in_channels=128),
            )
        ),
        2,
    )
    inputs = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    local = local_lipschitz(lambda x: model(x, mode='tensor'), inputs)
    bound = product_bound(model, lambda: model(inputs[:1], mode='tensor'))
    assert not bound.unbounded and local.max().item() < bound.value


def test_what_is_not_understood_is_named():
    net = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Softplus(), nn.Linear(3, 2)))
    assert product_bound(net, lambda: net(torch.zeros(1, 3))) == (None, ['1.0 (Softplus)'])
    assert product_bound(net[0], lambda: None) == (
        None,
        ['the network (it was not called, so its input size is not known)'],
    )


class Tenfold(nn.Sequential):
    def forward(self, x):
        return 10 * super().forward(x)


class Renamed(CifarResNet):
    """With its base's forward."""


def test_a_forward_of_ones_own_is_not_understood_and_an_inherited_one_is():
    net = nn.Sequential(nn.Linear(3, 3), Tenfold(nn.Linear(3, 3)))
    assert product_bound(net, lambda: net(torch.zeros(1, 3))) == (None, ['1 (Tenfold)'])
    net = randomised(Renamed(20), 0)
    assert not product_bound(net, lambda: net(torch.zeros(1, 3, 8, 8, dtype=torch.float64))).unbounded


def test_what_ran_and_was_not_counted_is_named():
    __import__('mmseg.models')
    config = dict(
        type='mmseg.ResNet',
        depth=18,
        base_channels=4,
        stem_channels=4,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0,),
        init_cfg=None,
    )  # the second stage runs, for nothing: it need not be counted
    plugin = dict(cfg=dict(type='ContextBlock', ratio=1 / 4), stages=(True, False), position='after_conv3')
    plain, plugged = MODELS.build(config), MODELS.build(dict(config, depth=50, plugins=[plugin]))
    plain.eval(), plugged.eval()
    x = torch.zeros(1, 3, 16, 16)
    assert not product_bound(plain, lambda: plain(x)).unbounded
    bound = product_bound(plugged, lambda: plugged(x))
    assert bound.value is None and all('context_block' in name for name in bound.unbounded)


def test_one_layer_at_growing_sizes_counts_at_each():
    conv = nn.Conv2d(1, 1, 3, padding=2, bias=False).double()  # 3 px become 5, 7 and 9
    nn.init.ones_(conv.weight)
    net, x = nn.Sequential(conv, conv, conv), torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    truth = jacobian_norms(net, x).item()
    alone = product_bound(conv, lambda: conv(x)).value
    # the norm at 3 px, the smallest, cubed is no bound
    assert alone**3 < truth <= product_bound(net, lambda: net(x)).value


def test_slopes_and_batch_norms_of_every_kind():
    net = nn.Sequential(nn.LeakyReLU(3.0), nn.BatchNorm1d(2, affine=False)).eval()
    net[1].running_var[:] = torch.tensor([4.0, 16.0])
    assert product_bound(net, lambda: net(torch.zeros(1, 2))).value == pytest.approx(3 / 2, rel=1e-5)
    norm = nn.BatchNorm1d(2, track_running_stats=False).eval()
    assert product_bound(norm, lambda: norm(torch.zeros(2, 2))) == (
        None,
        ['the network (it has no running statistics)'],
    )


def test_attention_has_a_local_constant():
    def attend(x):
        return nn.functional.scaled_dot_product_attention(x, x, x)

    inputs = torch.randn(2, 1, 5, 4, dtype=torch.float64)
    # 20 inputs and 20 iterations: exact
    assert torch.allclose(local_lipschitz(attend, inputs), jacobian_norms(attend, inputs), rtol=1e-9)


def test_reading_leaves_no_hooks_behind():
    net = randomised(WideResNet(10), 0)
    product_bound(net, lambda: net(torch.zeros(1, 3, 8, 8, dtype=torch.float64)))
    assert not any(module._forward_pre_hooks for module in net.modules())
