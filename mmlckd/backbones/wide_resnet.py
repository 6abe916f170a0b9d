"""WideResNet for small images."""

from typing import Optional, Sequence, Tuple

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmlckd.registry import MODELS


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
class WideResNet(BaseModule):
    """WRN-depth-width on images of about 32 px: three stages of (depth - 4) / 6 blocks at 16, 32, 64 times width channels.

    The maps of LONDON's taps are ``layer2.0.bn1``, ``layer3.0.bn1`` and ``bn``: each normalised, before its ReLU.

    Args:
        depth: 6 n + 4: 10, 16, 22, 28, 34, 40.
        widen_factor: Width.
        dropout: Probability inside each block.
        in_channels: Channels of the image.
        out_indices: Stages (0 to 2) whose outputs are returned; the last stage's is after the final batch norm and ReLU.
        frozen_stages: Stages up to this one, and the stem, are frozen in evaluation mode; -1 freezes nothing.
        norm_eval: Keep batch norms in evaluation mode while training.
        init_cfg: MMEngine initialisation.

    Raises:
        ValueError: The depth is not 6 n + 4, or a stage is out of range.

    Source: Zagoruyko and Komodakis, Wide residual networks (BMVC 2016).
    """

    def __init__(self,
                 depth: int,
                 widen_factor: int = 1,
                 dropout: float = 0.,
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (2,),
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 init_cfg: Optional[dict] = (dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer='_BatchNorm'))):
        super().__init__(init_cfg=list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f'depth is {depth}: WideResNet needs 6 n + 4, such as 10, 16 or 28')
        if not set(out_indices) <= {0, 1, 2} or frozen_stages not in (-1, 0, 1, 2):
            raise ValueError(f'out_indices is {tuple(out_indices)} and frozen_stages {frozen_stages}: stages are 0, 1 and 2')
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        channels = 16
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        for stage in range(3):
            blocks = []
            for index in range((depth - 4) // 6):
                width = 16 * 2**stage * widen_factor
                blocks.append(WideBasicBlock(channels, width, 2 if stage and not index else 1, dropout))
                channels = width
            self.add_module(f'layer{stage + 1}', nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(channels)
        self._freeze()

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, C, H, W) to a tuple of maps, one for each of ``out_indices``."""
        x = self.conv1(x)
        outs = []
        for stage in range(3):
            x = getattr(self, f'layer{stage + 1}')(x)
            if stage in self.out_indices:
                outs.append(F.relu(self.bn(x)) if stage == 2 else x)
        return tuple(outs)

    def train(self, mode: bool = True) -> 'WideResNet':
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages >= 0:
            frozen = [self.conv1, *(getattr(self, f'layer{stage + 1}') for stage in range(self.frozen_stages + 1))]
            for module in frozen:
                module.eval().requires_grad_(False)
