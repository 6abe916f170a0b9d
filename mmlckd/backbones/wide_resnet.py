"""WideResNet for small images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmlckd.registry import MODELS

from .preact_backbone import PreActBackbone


class WideBasicBlock(nn.Module):
    """Pre-activation block: batch norm, ReLU, 3 x 3 convolution, twice, with optional dropout between."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.dropout = dropout
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        preact = F.relu(self.bn1(x))
        out = F.relu(self.bn2(self.conv1(preact)))
        out = self.conv2(F.dropout(out, self.dropout, self.training))
        return out + (x if self.shortcut is None else self.shortcut(preact))


@MODELS.register_module()
class WideResNet(PreActBackbone):
    """WRN-depth-width for images of about 32 px: three stages of (depth - 4) / 6 blocks.

    The stages have 16, 32 and 64 channels, times the width.

    LONDON taps ``layer2.0.bn1``, ``layer3.0.bn1`` and ``bn``. Their maps are normalised and not yet rectified.

    Args:
        depth: 6 n + 4: 10, 16, 22, 28, 34, 40.
        widen_factor: Width.
        dropout: Probability inside each block.
        in_channels: Channels of the image.
        kwargs: ``out_indices``, ``frozen_stages``, ``norm_eval`` and ``init_cfg`` of :class:`.PreActBackbone`.

    Raises:
        ValueError: The depth is not 6 n + 4, or a stage is out of range.

    Source: Zagoruyko and Komodakis, Wide residual networks (BMVC 2016).
    """

    def __init__(self, depth: int, widen_factor: int = 1, dropout: float = 0.0, in_channels: int = 3, **kwargs):
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f'depth is {depth}: WideResNet needs 6 n + 4, such as 10, 16 or 28')
        channels = 16
        stem: dict[str, nn.Module] = dict(conv1=nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))
        stages: list[list[nn.Module]] = []
        for stage in range(3):
            stages.append([])
            for index in range((depth - 4) // 6):
                width = 16 * 2**stage * widen_factor
                stages[-1].append(WideBasicBlock(channels, width, 2 if stage and not index else 1, dropout))
                channels = width
        super().__init__(stem, stages, channels, **kwargs)
