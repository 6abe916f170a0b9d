"""An upper bound of a network's Lipschitz constant: norms multiplied along chains and added over skip connections."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.utils import to_2tuple
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmlckd.functional import operator_norm

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MEANS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
SLOPE_ONE = (
    nn.Identity,
    nn.ReLU,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.Tanh,
    nn.Flatten,
    nn.Dropout,
    nn.Dropout2d,
    DropPath,
)  # at most


class Bound(NamedTuple):
    """An upper bound in output units per input unit, None where there is none, and the modules that could not be bounded."""

    value: float | None
    unbounded: list[str]


def product_bound(model: nn.Module, forward: Callable[[], object]) -> Bound:
    """Upper bound of the Lipschitz constant of a network in evaluation mode, from its parts.

    A chain is bounded by the product of its parts, a residual block by the sum of its branch and its shortcut. Convolutions and linear
    layers count with their operator norm at their real input size, batch norms with max |gamma| / sqrt(var + eps), poolings with theirs.
    Known are ``nn.Sequential``, the residual blocks of OpenMMLab's ResNets and of this package's backbones, those backbones, and image
    classifiers with a linear head on them; subclasses too, unless they bring a forward of their own. What is not known is named, and so is
    whatever ran without being counted, such as a plugin inside a block: nothing is guessed.

    Args:
        model: The network.
        forward: Runs it once on one input of the size that the bound is for.

    Returns:
        The bound, of the classifier's logits or the backbone's last map as a function of the network's (normalised) input. Operator norms
        approach from below, each to about 1e-4 of its value, and the bound with them.

    Source: Szegedy et al., Intriguing properties of neural networks (2014), section 4.3, for the product; sums over skip
    connections as in Gouk et al. (2021), section 3.3.
    """
    walk = _Walk(model)
    with torch.no_grad():
        with walk.watch():
            forward()
        value = walk.of(model)
    walk.name_uncounted()
    return Bound(None if walk.unbounded else value, walk.unbounded)


class _Walk:
    """Bounds of a network's modules; 1 stands in for what cannot be bounded, whose name is kept."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.names = {module: name or 'the network' for name, module in model.named_modules()}
        self.shapes: dict[nn.Module, set[tuple]] = {}  # of every module that ran
        self.counted: set[nn.Module] = set()
        self.unbounded: list[str] = []

    def watch(self) -> ExitStack:
        """Note the sizes of each module's inputs; convolutions keep theirs, linear layers their features."""

        def seen(module, args, kwargs):
            shapes = self.shapes.setdefault(module, set())
            for value in (*args, *kwargs.values())[:1]:
                if isinstance(value, Tensor):
                    shapes.add((1, *(value.shape[-1:] if isinstance(module, nn.Linear) else value.shape[1:])))

        stack = ExitStack()
        for module in self.model.modules():
            stack.callback(module.register_forward_pre_hook(seen, with_kwargs=True).remove)
        return stack

    def of(self, module: nn.Module | None) -> float:
        if module is None:
            return 1.0
        self.counted.add(module)
        rule = RULES.get(_forward_of(type(module)))
        return rule(self, module) if rule else self.unknown(module, type(module).__name__)

    def chain(self, modules: Iterable[nn.Module | None]) -> float:
        return math.prod([self.of(module) for module in modules])

    def largest(self, module: nn.Module, norm: Callable[[tuple], float]) -> float:
        """The norm at the size that the module ran at, or the largest where it ran at several."""
        if not self.shapes.get(module):
            return self.unknown(module, 'it was not called, so its input size is not known')
        return max(norm(shape) for shape in self.shapes[module])

    def unknown(self, module: nn.Module, why: str) -> float:
        self.without(module)
        self.unbounded.append(f'{self.names[module]} ({why})')
        return 1.0

    def without(self, module: nn.Module) -> None:
        """Take a module, and what is inside it, for counted."""
        self.counted.update(module.modules())

    def name_uncounted(self) -> None:
        """Name the layers that ran and that no rule asked for; those that stretch nothing need not be asked for."""
        for module in self.shapes:
            if (
                module not in self.counted
                and not any(module.children())
                and RULES.get(_forward_of(type(module))) is not _slope_one
            ):
                self.unknown(module, f'{type(module).__name__}, which runs where no rule counts it')


def _forward_of(kind: type) -> str:
    """Name of the function that a class runs as its forward, inherited or its own: what a rule speaks for."""
    return f'{kind.forward.__module__}.{kind.forward.__qualname__}'


def _slope_one(walk: _Walk, module: nn.Module) -> float:
    return 1.0


def _leaky_relu(walk: _Walk, module: nn.LeakyReLU) -> float:
    return max(1.0, abs(module.negative_slope))


def _linear(walk: _Walk, layer: nn.Module) -> float:
    return walk.largest(layer, lambda shape: operator_norm(layer, shape, num_iters=None).item())


def _batch_norm(walk: _Walk, norm: _BatchNorm) -> float:
    if norm.running_var is None:
        return walk.unknown(norm, 'it has no running statistics')
    scale = (norm.running_var + norm.eps).rsqrt()
    return (scale if norm.weight is None else norm.weight.abs() * scale).max().item()


def _mean(walk: _Walk, pool: nn.Module) -> float:
    return walk.largest(pool, lambda shape: averaging(pool, shape))


def averaging(pool: Callable[[Tensor], Tensor], shape: tuple) -> float:
    """Norm of a pooling by means: without negative entries, at most sqrt(largest row sum x largest column sum) (Schur's test)."""
    with torch.enable_grad():
        ones = torch.ones(shape, requires_grad=True)
        rows = pool(ones)
        (columns,) = torch.autograd.grad(rows.sum(), ones)
    return math.sqrt(rows.max().item() * columns.max().item())


def _maximum(walk: _Walk, pool: nn.MaxPool2d) -> float:
    """Along an axis a position lies in the windows i with i stride + j dilation, 0 <= j < k: every (stride / gcd)-th j."""
    windows = 1
    for k, stride, dilation in zip(*map(to_2tuple, (pool.kernel_size, pool.stride, pool.dilation))):
        windows *= math.ceil(k / (stride // math.gcd(stride, dilation)))
    return math.sqrt(windows)


def _resnet_block(walk: _Walk, block: nn.Module) -> float:
    layers = [
        layer
        for i in (1, 2, 3)
        if hasattr(block, f'conv{i}')
        for layer in (getattr(block, f'conv{i}'), getattr(block, f'norm{i}'))
    ]
    return walk.chain(layers) + walk.of(block.downsample)


def _resnet(walk: _Walk, net: nn.Module) -> float:
    stem = [net.stem] if getattr(net, 'deep_stem', False) else [net.conv1, net.norm1]
    if getattr(net, 'maxpool', None) is not None:
        stem.append(net.maxpool)
    stages = [getattr(net, name) for name in net.res_layers]
    last = max(net.out_indices) + 1
    for stage in stages[last:]:
        walk.without(stage)  # it runs, for nothing
    return walk.chain([*stem, *stages[:last]])


def _wide_block(walk: _Walk, block: nn.Module) -> float:
    first = walk.of(block.bn1)
    branch = first * walk.chain([block.conv1, block.bn2, block.conv2])
    return branch + (1.0 if block.shortcut is None else first * walk.of(block.shortcut))


def _pyramid_block(walk: _Walk, block: nn.Module) -> float:
    layers = [getattr(block, f'bn{block.count + 1}')]
    layers += [getattr(block, f'{kind}{i}') for i in range(1, block.count + 1) for kind in ('bn', 'conv')]
    if block.stride == 1:
        return walk.chain(layers) + 1.0
    return walk.chain(layers) + walk.largest(
        block, lambda shape: averaging(lambda x: F.avg_pool2d(x, block.stride, ceil_mode=True), shape)
    )


def _preact_backbone(walk: _Walk, net: nn.Module) -> float:
    stages, last = [net.layer1, net.layer2, net.layer3], max(net.out_indices) + 1
    for stage in stages[last:]:
        walk.without(stage)
    return walk.chain([*(getattr(net, name) for name in net.stem), *stages[:last], *([net.bn] if last == 3 else [])])


def _classifier(walk: _Walk, model: nn.Module) -> float:
    return walk.chain([model.backbone, model.neck, model.head])


RULES: dict[str, Callable] = {
    **{_forward_of(kind): _slope_one for kind in SLOPE_ONE},
    **{_forward_of(kind): _linear for kind in LINEAR},
    **{_forward_of(kind): _mean for kind in MEANS},
    _forward_of(nn.LeakyReLU): _leaky_relu,
    _forward_of(_BatchNorm): _batch_norm,
    _forward_of(nn.SyncBatchNorm): _batch_norm,
    _forward_of(nn.MaxPool2d): _maximum,
    _forward_of(nn.Sequential): _Walk.chain,
    # by name, since only the task's own package is imported
    **{
        f'{package}.models.backbones.resnet.{name}.forward': rule
        for package in ('mmpretrain', 'mmdet', 'mmseg')
        for name, rule in (('BasicBlock', _resnet_block), ('Bottleneck', _resnet_block), ('ResNet', _resnet))
    },
    'mmpretrain.models.backbones.resnet_cifar.ResNet_CIFAR.forward': _resnet,
    'mmlckd.backbones.wide_resnet.WideBasicBlock.forward': _wide_block,
    'mmlckd.backbones.pyramid_net.PyramidBlock.forward': _pyramid_block,
    'mmlckd.backbones.preact_backbone.PreActBackbone.forward': _preact_backbone,
    'mmpretrain.models.classifiers.image.ImageClassifier.forward': _classifier,
    'mmpretrain.models.necks.gap.GlobalAveragePooling.forward': lambda walk, neck: walk.of(neck.gap),
    'mmpretrain.models.heads.linear_head.LinearClsHead.forward': lambda walk, head: walk.of(head.fc),
}
