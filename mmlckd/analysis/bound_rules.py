"""How :func:`~mmlckd.analysis.product_bound.product_bound` bounds each kind of module: one rule for each forward.

A rule takes the walk over the network and the module, and gives its bound.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Callable

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.utils import to_2tuple
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmlckd.functional import operator_norm

if TYPE_CHECKING:
    from .product_bound import Walk

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MEANS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
SLOPE_ONE = (  # at most
    *(nn.Identity, nn.ReLU, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Flatten),
    *(nn.Dropout, nn.Dropout2d, DropPath),
)


def rule_of(module: nn.Module) -> Callable[[Walk, nn.Module], float] | None:
    """The rule for a module, None where there is none."""
    return RULES.get(_forward_of(type(module)))


def stretches_nothing(module: nn.Module) -> bool:
    """Whether it is known to have a slope of at most 1."""
    return rule_of(module) is _slope_one


def averaging(pool: Callable[[Tensor], Tensor], shape: tuple) -> float:
    """Norm of a pooling by means, for inputs of a shape.

    It has no negative entries, so it is at most sqrt(largest row sum x largest column sum) (Schur's test).
    """
    with torch.enable_grad():
        ones = torch.ones(shape, requires_grad=True)
        rows = pool(ones)
        (columns,) = torch.autograd.grad(rows.sum(), ones)
    return math.sqrt(rows.max().item() * columns.max().item())


def _forward_of(kind: type[nn.Module]) -> str:
    """Name of the function that a class runs as its forward, inherited or its own: a rule is for this function."""
    return f'{kind.forward.__module__}.{kind.forward.__qualname__}'


def _slope_one(walk: Walk, module: nn.Module) -> float:
    return 1.0


def _leaky_relu(walk: Walk, module: nn.LeakyReLU) -> float:
    return max(1.0, abs(module.negative_slope))


def _linear(walk: Walk, layer: nn.Module) -> float:
    return walk.largest(layer, lambda shape: operator_norm(layer, shape, num_iters=None).item())


def _batch_norm(walk: Walk, norm: _BatchNorm) -> float:
    if norm.running_var is None:
        return walk.unknown(norm, 'it has no running statistics')
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = norm.weight.abs() * scale
    return scale.max().item()


def _mean(walk: Walk, pool: nn.Module) -> float:
    return walk.largest(pool, lambda shape: averaging(pool, shape))


def _maximum(walk: Walk, pool: nn.MaxPool2d) -> float:
    """The square root of how many windows a position may lie in.

    Along an axis these are the windows i with i stride + j dilation at the position, 0 <= j < k: every
    (stride / gcd)-th j.
    """
    windows = 1
    for k, stride, dilation in zip(*map(to_2tuple, (pool.kernel_size, pool.stride, pool.dilation))):
        windows *= math.ceil(k / (stride // math.gcd(stride, dilation)))
    return math.sqrt(windows)


def _resnet_block(walk: Walk, block: nn.Module) -> float:
    layers = []
    for i in (1, 2, 3):
        if hasattr(block, f'conv{i}'):  # a basic block has two
            layers += [getattr(block, f'conv{i}'), getattr(block, f'norm{i}')]
    return walk.chain(layers) + walk.of(block.downsample)


def _resnet(walk: Walk, net: nn.Module) -> float:
    stem = [net.stem] if getattr(net, 'deep_stem', False) else [net.conv1, net.norm1]
    stem.append(getattr(net, 'maxpool', None))
    return walk.chain(stem) * _stages(walk, [getattr(net, name) for name in net.res_layers], net.out_indices)


def _stages(walk: Walk, stages: list[nn.Module], out_indices: tuple[int, ...]) -> float:
    """Stages up to the last one that is used; those behind it run for nothing."""
    last = max(out_indices) + 1
    for stage in stages[last:]:
        walk.without(stage)
    return walk.chain(stages[:last])


def _wide_block(walk: Walk, block: nn.Module) -> float:
    first = walk.of(block.bn1)
    branch = first * walk.chain([block.conv1, block.bn2, block.conv2])
    shortcut = 1.0 if block.shortcut is None else first * walk.of(block.shortcut)
    return branch + shortcut


def _pyramid_block(walk: Walk, block: nn.Module) -> float:
    layers = [getattr(block, f'bn{block.count + 1}')]
    for i in range(1, block.count + 1):
        layers += [getattr(block, f'bn{i}'), getattr(block, f'conv{i}')]
    branch = walk.chain(layers)
    if block.stride == 1:
        return branch + 1.0

    def shortcut(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, block.stride, ceil_mode=True)

    return branch + walk.largest(block, lambda shape: averaging(shortcut, shape))


def _preact_backbone(walk: Walk, net: nn.Module) -> float:
    stem = walk.chain(getattr(net, name) for name in net.stem)
    stages = _stages(walk, [net.layer1, net.layer2, net.layer3], net.out_indices)
    final = walk.of(net.bn) if 2 in net.out_indices else 1.0
    return stem * stages * final


def _classifier(walk: Walk, model: nn.Module) -> float:
    return walk.chain([model.backbone, model.neck, model.head])


RULES: dict[str, Callable[[Walk, Any], float]] = {
    **{_forward_of(kind): _slope_one for kind in SLOPE_ONE},
    **{_forward_of(kind): _linear for kind in LINEAR},
    **{_forward_of(kind): _mean for kind in MEANS},
    _forward_of(nn.LeakyReLU): _leaky_relu,
    _forward_of(_BatchNorm): _batch_norm,
    _forward_of(nn.SyncBatchNorm): _batch_norm,
    _forward_of(nn.MaxPool2d): _maximum,
    _forward_of(nn.Sequential): lambda walk, modules: walk.chain(modules),
    # by name, since only the task's own package is imported
    'mmpretrain.models.backbones.resnet_cifar.ResNet_CIFAR.forward': _resnet,
    'mmlckd.backbones.wide_resnet.WideBasicBlock.forward': _wide_block,
    'mmlckd.backbones.pyramid_net.PyramidBlock.forward': _pyramid_block,
    'mmlckd.backbones.preact_backbone.PreActBackbone.forward': _preact_backbone,
    'mmpretrain.models.classifiers.image.ImageClassifier.forward': _classifier,
    'mmpretrain.models.necks.gap.GlobalAveragePooling.forward': lambda walk, neck: walk.of(neck.gap),
    'mmpretrain.models.heads.linear_head.LinearClsHead.forward': lambda walk, head: walk.of(head.fc),
}
for _package in ('mmpretrain', 'mmdet', 'mmseg'):
    _resnets = f'{_package}.models.backbones.resnet'
    RULES[f'{_resnets}.BasicBlock.forward'] = _resnet_block
    RULES[f'{_resnets}.Bottleneck.forward'] = _resnet_block
    RULES[f'{_resnets}.ResNet.forward'] = _resnet
