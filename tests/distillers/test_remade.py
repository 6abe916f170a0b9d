"""Outputs of batch norms that are made again for the backward pass, against ones that are kept."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from mmlckd.distillers.remade import Kept, Remade


class Block(nn.Module):
    def __init__(self, norm, inplace=False):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 5, 3), norm, nn.ReLU(inplace)

    def forward(self, image):
        return self.act(self.norm(self.conv(image)))


def kept(norm, prepare=lambda block: None, dtype=torch.float32, copied=False, **autocast):
    """What a product's derivative gets of a norm's output, and what it is; and how it was kept."""
    torch.manual_seed(0)
    block = Block(norm, inplace=copied).to(dtype).train()
    prepare(block)
    found = []

    def collect(module, args):
        feat = args[0].clone() if copied else args[0]
        maps = Kept()
        maps.arrive('tap', feat)
        weight = torch.ones(feat.shape[1], 1, 1, dtype=feat.dtype, requires_grad=True)
        with maps.hooks():
            product = weight * feat
        found.extend([product, weight, feat.detach().clone(), maps.remade.get('tap')])

    block.act.register_forward_pre_hook(collect)
    image = torch.randn(4, 3, 9, 9, dtype=dtype)
    with torch.autocast('cpu', enabled=bool(autocast), **autocast):
        block(image)
    product, weight, feat, remade = found
    slope = torch.randn_like(product)
    (grad,) = torch.autograd.grad(product, weight, slope)
    return grad, (slope * feat).sum((0, 2, 3)).view(-1, 1, 1), remade


def shifted(block):
    """Inputs a thousand standard deviations from zero, and a channel that is constant."""
    nn.init.constant_(block.conv.bias, 1000.0)
    block.conv.weight.data[2] = 0.0


@pytest.mark.parametrize('copied', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_it_is_the_norms_output(copied, dtype):
    for prepare in (nn.Module.train, lambda block: block.to(memory_format=torch.channels_last)):
        found, expected, remade = kept(nn.BatchNorm2d(5), prepare, dtype, copied)
        assert isinstance(remade, Remade)
        torch.testing.assert_close(found, expected)


def test_far_from_zero_and_constant():
    found, expected, remade = kept(nn.BatchNorm2d(5), shifted)
    assert isinstance(remade, Remade)
    # The norm itself is no better there: its inputs have three digits less.
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)
    found, expected, _ = kept(nn.BatchNorm2d(5), shifted, torch.float64)
    torch.testing.assert_close(found, expected)


def test_under_autocast():
    found, expected, remade = kept(nn.BatchNorm2d(5), dtype=torch.float32, cache_enabled=True)
    assert isinstance(remade, Remade)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ('norm', 'prepare'),
    [
        (nn.BatchNorm2d(5), nn.Module.eval),  # running statistics
        (nn.BatchNorm2d(5, affine=False), nn.Module.train),
        (nn.BatchNorm2d(5), lambda block: block.norm.requires_grad_(False)),
        (nn.GroupNorm(1, 5), nn.Module.train),
    ],
)
def test_other_tensors_are_kept(norm, prepare):
    found, expected, remade = kept(norm, prepare)
    assert remade is None
    torch.testing.assert_close(found, expected)


def test_hooks_that_pack_what_is_kept():
    """They may unpack it only once, and so does the norm itself."""
    with saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        feat = nn.BatchNorm2d(3)(torch.randn(2, 3, 4, 4))
        assert Remade.of(feat) is None
    assert isinstance(Remade.of(feat), Remade)


def test_a_map_is_known_by_its_memory():
    """One that is gone may leave its address to another."""
    image = torch.randn(2, 3, 4, 4)
    feat = nn.BatchNorm2d(3)(image)
    maps = Kept()
    maps.arrive('tap', feat)
    alias, other = feat.detach(), torch.randn(2, 3, 4, 4)
    assert isinstance(maps._pack(feat), Remade) and isinstance(maps._pack(alias), Remade)
    assert maps._pack(other) is other and isinstance(maps._pack(feat[:1]), torch.Tensor)
    gone = weakref.ref(feat)
    del feat
    assert gone() is None and maps._pack(alias) is alias
