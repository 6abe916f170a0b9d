"""An upper bound of a network's Lipschitz constant: norms multiplied along chains and added over skip connections."""

import math
from contextlib import ExitStack
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from mmlckd.functional import operator_norm

SLOPE_ONE = (nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Dropout, nn.Flatten, nn.Sigmoid, nn.Tanh)  # at most


class Bound(NamedTuple):
    """An upper bound in output units per input unit, None where there is none, and the modules that could not be bounded."""

    value: Optional[float]
    unbounded: List[str]


def product_bound(model: nn.Module, forward: Callable[[], object], num_iters: int = 50) -> Bound:
    """Upper bound of the Lipschitz constant of a network in evaluation mode, from its parts.

    A chain is bounded by the product of its parts, a residual block by the sum of its branch and its shortcut. Convolutions and linear
    layers count with their operator norm at their real input size, batch norms with max |gamma| / sqrt(var + eps), poolings with theirs.
    Known are ``nn.Sequential``, the residual blocks of OpenMMLab's ResNets and of this package's backbones, those backbones, and image
    classifiers with a linear head on them. What is not known is named, and nothing is guessed.

    Args:
        model: The network.
        forward: Runs it once on one input of the size that the bound is for.
        num_iters: Iterations of an operator norm, which approaches from below; the Krylov form is within 1e-3 after 50 on all
            layers that were tried.

    Returns:
        The bound, of the classifier's logits or the backbone's last map as a function of the network's (normalised) input.

    Source: Szegedy et al., Intriguing properties of neural networks (2014), section 4.3, for the product; sums over skip
    connections as in Gouk et al. (2021), section 3.3.
    """
    walk = _Walk(model, num_iters)
    with torch.no_grad(), walk.watch():
        forward()
        value = walk.of(model)
    return Bound(None if walk.unbounded else value, walk.unbounded)


class _Walk:
    """Bounds of a network's modules; 1 stands in for what cannot be bounded, whose name is kept."""

    def __init__(self, model: nn.Module, num_iters: int):
        self.model, self.num_iters = model, num_iters
        self.names = {module: name or 'the network' for name, module in model.named_modules()}
        self.shapes: Dict[nn.Module, tuple] = {}
        self.unbounded: List[str] = []

    def watch(self) -> ExitStack:
        """Note the size of each module's first input; convolutions keep theirs, linear layers their features."""
        def seen(module, args):
            if args and isinstance(args[0], (torch.Tensor, tuple, list)):
                value = args[0] if isinstance(args[0], torch.Tensor) else args[0][-1]
                self.shapes.setdefault(module, (1, *(value.shape[-1:] if isinstance(module, nn.Linear) else value.shape[1:])))

        stack = ExitStack()
        for module in self.model.modules():
            stack.callback(module.register_forward_pre_hook(seen).remove)
        return stack

    def of(self, module: Optional[nn.Module]) -> float:
        if module is None or isinstance(module, SLOPE_ONE):
            return 1.
        if isinstance(module, (_ConvNd, nn.Linear)):
            return self.layer(module)
        if isinstance(module, _BatchNorm):
            return (module.weight.abs() / (module.running_var + module.eps).sqrt()).max().item()
        if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
            return pooling(module.kernel_size, module.stride, isinstance(module, nn.MaxPool2d))
        if isinstance(module, nn.Sequential):
            return self.chain(module)
        rule = RULES.get(type(module).__name__)
        return rule(self, module) if rule else self.unknown(module, type(module).__name__)

    def chain(self, modules: Sequence[nn.Module]) -> float:
        return math.prod(self.of(module) for module in modules)

    def layer(self, module: nn.Module) -> float:
        if module not in self.shapes:
            return self.unknown(module, 'it was not called, so its input size is not known')
        return operator_norm(module, self.shapes[module], num_iters=self.num_iters).item()

    def unknown(self, module: nn.Module, why: str) -> float:
        self.unbounded.append(f'{self.names[module]} ({why})')
        return 1.


def pooling(kernel, stride, maximum: bool) -> float:
    """Norm of a pooling: a position lies in at most ceil(k / s) windows a side; a maximum passes it on whole, a mean over k a 1 / k."""
    value = 1.
    for k, s in zip(*(side if isinstance(side, (tuple, list)) else (side, side) for side in (kernel, stride))):
        value *= math.sqrt(math.ceil(k / s)) / (1. if maximum else math.sqrt(k))
    return value


def _resnet_block(walk: _Walk, block: nn.Module) -> float:
    layers = [layer for i in (1, 2, 3) if hasattr(block, f'conv{i}') for layer in (getattr(block, f'conv{i}'), getattr(block, f'norm{i}'))]
    return walk.chain(layers) + walk.of(block.downsample)


def _resnet(walk: _Walk, net: nn.Module) -> float:
    stem = [net.stem] if getattr(net, 'deep_stem', False) else [net.conv1, net.norm1]
    if getattr(net, 'maxpool', None) is not None:
        stem.append(net.maxpool)
    return walk.chain([*stem, *(getattr(net, name) for name in net.res_layers[:max(net.out_indices) + 1])])


def _wide_block(walk: _Walk, block: nn.Module) -> float:
    first = walk.of(block.bn1)
    branch = first * walk.chain([block.conv1, block.bn2, block.conv2])
    return branch + (1. if block.shortcut is None else first * walk.of(block.shortcut))


def _pyramid_block(walk: _Walk, block: nn.Module) -> float:
    layers = [getattr(block, f'bn{block.count + 1}')]
    layers += [getattr(block, f'{kind}{i}') for i in range(1, block.count + 1) for kind in ('bn', 'conv')]
    return walk.chain(layers) + (pooling(block.stride, block.stride, False) if block.stride > 1 else 1.)


def _preact_backbone(walk: _Walk, net: nn.Module) -> float:
    last = max(net.out_indices)
    stages = [getattr(net, f'layer{stage + 1}') for stage in range(last + 1)]
    return walk.chain([*(getattr(net, name) for name in net.stem), *stages, *([net.bn] if last == 2 else [])])


def _global_pooling(walk: _Walk, neck: nn.Module) -> float:
    shape = walk.shapes.get(neck)
    return walk.unknown(neck, 'its input size is not known') if shape is None else 1 / math.sqrt(math.prod(shape[2:]))


def _classifier(walk: _Walk, model: nn.Module) -> float:
    return walk.chain([model.backbone, model.neck, model.head])


RULES: Dict[str, Callable] = {
    'BasicBlock': _resnet_block, 'Bottleneck': _resnet_block, 'ResNet': _resnet, 'ResNet_CIFAR': _resnet, 'CifarResNet': _resnet,
    'WideBasicBlock': _wide_block, 'PyramidBlock': _pyramid_block, 'WideResNet': _preact_backbone, 'PyramidNet': _preact_backbone,
    'ImageClassifier': _classifier, 'GlobalAveragePooling': _global_pooling, 'LinearClsHead': lambda walk, head: walk.of(head.fc)}
