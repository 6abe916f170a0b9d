"""PyramidNet for small images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmlckd.registry import MODELS

from .preact_backbone import PreActBackbone


class PyramidBlock(nn.Module):
    """A batch norm, then convolutions, each followed by a batch norm. ReLUs are between convolutions only.

    A basic block has two 3 x 3 convolutions. A bottleneck has 1 x 1, 3 x 3 and 1 x 1, the last to four times the width.
    The shortcut is the input, averaged 2 x 2 in a block that strides, with zeros for the channels that the block adds.
    """

    EXPANSION = 4  # of a bottleneck

    def __init__(self, in_channels: int, width: int, stride: int, bottleneck: bool):
        super().__init__()
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        strided = 1 if bottleneck else 0  # the first 3 x 3
        self.count = len(kernels)
        self.stride = stride
        self.out_channels = width * self.EXPANSION if bottleneck else width
        channels = [in_channels, *[width] * (self.count - 1), self.out_channels]
        self.bn1 = nn.BatchNorm2d(in_channels)
        for i, kernel in enumerate(kernels):
            self.add_module(
                f'conv{i + 1}',
                nn.Conv2d(
                    channels[i],
                    channels[i + 1],
                    kernel,
                    stride=stride if i == strided else 1,
                    padding=kernel // 2,
                    bias=False,
                ),
            )
            self.add_module(f'bn{i + 2}', nn.BatchNorm2d(channels[i + 1]))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(x)
        for i in range(1, self.count + 1):
            out = getattr(self, f'bn{i + 1}')(getattr(self, f'conv{i}')(out if i == 1 else F.relu(out)))
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        return out + F.pad(x, (0, 0, 0, 0, 0, self.out_channels - x.shape[1]))


@MODELS.register_module()
class PyramidNet(PreActBackbone):
    """PyramidNet-depth (alpha) for images of about 32 px: every block is wider than the one before, by alpha in total.

    The maps of LONDON's taps are ``layer2.0.bn2``, ``layer3.0.bn2`` and ``bn`` for bottlenecks, ``layer2.0.bn1``,
    ``layer3.0.bn1`` and ``bn`` for basic blocks.

    Args:
        depth: 9 n + 2 with bottlenecks, 6 n + 2 without.
        alpha: Width that all blocks together add to the 16 channels of the stem.
        bottleneck: Blocks of three convolutions instead of two.
        in_channels: Channels of the image.
        kwargs: ``out_indices``, ``frozen_stages``, ``norm_eval`` and ``init_cfg`` of :class:`.PreActBackbone`.

    Raises:
        ValueError: The depth does not fit, alpha is not positive, or a stage is out of range.

    Source: Han et al., Deep pyramidal residual networks (CVPR 2017), additive form.
    """

    def __init__(self, depth: int, alpha: float, bottleneck: bool = False, in_channels: int = 3, **kwargs):
        per_block = 9 if bottleneck else 6
        blocks, rest = divmod(depth - 2, per_block)
        if blocks < 1 or rest:
            raise ValueError(f'depth is {depth}: PyramidNet needs {per_block} n + 2 with bottleneck={bottleneck}')
        if alpha <= 0:
            raise ValueError(f'alpha is {alpha}: PyramidNet needs a positive number of channels to add')
        channels = 16
        stem = dict(conv1=nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(channels))
        stages: list[list[PyramidBlock]] = []
        for stage in range(3):
            stages.append([])
            for index in range(blocks):
                width = round(16 + alpha * (stage * blocks + index + 1) / (3 * blocks))
                stages[-1].append(PyramidBlock(channels, width, 2 if stage and not index else 1, bottleneck))
                channels = stages[-1][-1].out_channels
        super().__init__(stem, stages, channels, **kwargs)
