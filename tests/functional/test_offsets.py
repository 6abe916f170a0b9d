"""Operator norms do not depend on biases, however large, and neither do their gradients."""

from __future__ import annotations

import pytest
import torch
from mmcv.cnn import ConvAWS2d, ConvModule, ConvWS2d
from torch import nn
from torch.nn.utils import parametrizations, parametrize, weight_norm

from mmlckd.analysis import LayerNorms
from mmlckd.functional import operator_norm

IMAGE = (1, 3, 6, 6)


def batch_norm(kind, channels):
    norm = kind(channels)
    with torch.no_grad():
        norm.weight.uniform_(-2, 2)
        norm.running_var.uniform_(0.5, 2)
        norm.running_mean.normal_()
        norm.bias.normal_()
    return norm


class Nested(nn.Module):
    """A wrapper of a wrapper, with names of its own."""

    def __init__(self, layer):
        super().__init__()
        self.inside = nn.ModuleDict(dict(first=nn.Sequential(layer, nn.Identity())))

    def forward(self, x):
        return 2 * self.inside['first'](x)


class Doubled(nn.Module):
    """A bias of another kind, which only differentiation tells from a weight."""

    def forward(self, bias):
        return 2 * bias


class OwnOffset(nn.Conv2d):
    """A convolution that adds a parameter of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.shift = nn.Parameter(torch.randn(self.out_channels, 1, 1))

    def forward(self, x):
        return super().forward(x) + self.shift


def parametrized_bias():
    layer = nn.Conv2d(3, 4, 3)
    parametrize.register_parametrization(layer, 'bias', Doubled())
    return layer


MODULES = {
    'linear': (lambda: nn.Linear(6, 5), (1, 6)),
    'tokens': (lambda: nn.Linear(6, 5), (1, 3, 6)),
    'conv 1d': (lambda: nn.Conv1d(3, 4, 3, padding=1), (1, 3, 9)),
    'conv 3d': (lambda: nn.Conv3d(2, 3, 2, stride=2), (1, 2, 4, 4, 4)),
    **{
        f'conv 2d, {mode}': (lambda mode=mode: nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode), IMAGE)
        for mode in ('zeros', 'circular', 'reflect', 'replicate')
    },
    'grouped': (lambda: nn.Conv2d(4, 6, 3, groups=2, dilation=2, padding='same'), (1, 4, 7, 7)),
    'transposed 1d': (lambda: nn.ConvTranspose1d(3, 4, 3, stride=2), (1, 3, 5)),
    'transposed 2d': (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), IMAGE),
    'folded': (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), batch_norm(nn.BatchNorm2d, 4)).eval(), IMAGE),
    'folded, synchronised': (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), batch_norm(nn.SyncBatchNorm, 4)).eval(), IMAGE),
    'folded linear': (lambda: nn.Sequential(nn.Linear(6, 5), batch_norm(nn.BatchNorm1d, 5)).eval(), (1, 6)),
    'batch norm alone': (lambda: batch_norm(nn.BatchNorm2d, 3).eval(), IMAGE),
    'nested': (lambda: Nested(nn.Conv2d(3, 4, 3)), IMAGE),
    "mmcv's module": (
        lambda: ConvModule(3, 4, 3, bias=True, norm_cfg=dict(type='BN'), act_cfg=None).eval(),
        IMAGE,
    ),
    'standardised weight': (lambda: ConvWS2d(3, 4, 3), IMAGE),
    'standardised weight with buffers': (lambda: ConvAWS2d(3, 4, 3), IMAGE),
    'weight norm by hooks': (lambda: weight_norm(nn.Conv2d(3, 4, 3)), IMAGE),
    'weight norm': (lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), IMAGE),
    'spectral norm': (lambda: parametrizations.spectral_norm(nn.Linear(6, 5)).eval(), (1, 6)),
    'parametrized bias': (parametrized_bias, IMAGE),
    'an offset of its own': (lambda: OwnOffset(3, 4, 3), IMAGE),
}
if not hasattr(parametrizations, 'weight_norm'):  # before torch 2.1
    del MODULES['weight norm']


def offsets(module):
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return [value for name, value in named.items() if any(part in name for part in ('bias', 'running_mean', 'shift'))]


def scale_offsets(module, factor):
    with torch.no_grad():
        for offset in offsets(module):
            offset.copy_(factor * (1 + offset.abs()))


def norm_and_grads(module, shape):
    module.zero_grad()
    value = operator_norm(module, shape, num_iters=60)
    value.backward()
    return value.detach(), {name: parameter.grad for name, parameter in module.named_parameters()}


@pytest.mark.parametrize('factor', [1e0, 1e2, 1e4, 1e6, 1e8])
@pytest.mark.parametrize('make, shape', MODULES.values(), ids=MODULES)
def test_biases_of_any_size_change_nothing(make, shape, factor):
    torch.manual_seed(0)
    module = make()
    scale_offsets(module, 0.0)
    clean, clean_grads = norm_and_grads(module, shape)
    scale_offsets(module, factor)
    value, grads = norm_and_grads(module, shape)
    assert offsets(module) and clean > 0
    assert torch.equal(value, clean)
    for name, grad in grads.items():
        if 'bias' in name or 'shift' in name:
            assert grad is None or (grad == 0).all()
        else:
            assert torch.equal(grad, clean_grads[name]) and (grad != 0).any()


@pytest.mark.parametrize('make, shape', MODULES.values(), ids=MODULES)
def test_the_norm_is_that_of_the_explicit_matrix(make, shape):
    """In float64, with small offsets, output less output at zero loses no digit that counts."""
    torch.manual_seed(0)
    module = make().double()
    size = torch.Size(shape).numel()
    inputs = torch.eye(size, dtype=torch.float64).view(size, *shape[1:])
    with torch.no_grad():
        matrix = (module(inputs) - module(0 * inputs[:1])).flatten(1)
    truth = torch.linalg.matrix_norm(matrix, 2).item()
    assert operator_norm(module, shape, num_iters=200).item() == pytest.approx(truth, rel=1e-9)


def test_a_constant_in_the_forward_does_not_count():
    layer = nn.Linear(6, 5)
    shifted = Nested(layer)
    shifted.forward = lambda x: layer(x) + 3.0
    assert operator_norm(shifted, (1, 6)).item() == pytest.approx(operator_norm(layer, (1, 6)).item(), rel=1e-5)


@pytest.mark.parametrize('fold', [False, True])
@pytest.mark.parametrize('factor', [1e4, 1e8])
def test_of_a_networks_layers(fold, factor):
    """A bias in front of a batch norm, and the batch norm's own, as LayerNorms reads them while training."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), batch_norm(nn.BatchNorm2d, 4), nn.ReLU(), nn.Conv2d(4, 5, 3)).eval()
    readings = []
    for scale in (0.0, factor):
        scale_offsets(net, scale)
        norms = LayerNorms(net, '', fold_norms=fold)
        with norms.watch():
            net(torch.zeros(2, 3, 8, 8))
        readings.append(norms.measure(None))
    assert norms.folded == ({'0': '1'} if fold else {})
    assert torch.equal(*readings)
