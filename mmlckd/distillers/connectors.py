"""Connectors: student maps at the teacher's channels."""

from __future__ import annotations

import math

from torch import Tensor, nn

from mmlckd.compatibility import autocast_is_on


class Connector(nn.Sequential):
    """1 x 1 convolution without bias and batch norm, (B, in_channels, H, W) to (B, out_channels, H, W).

    The convolution starts from N(0, sqrt(2 / out_channels)). Maps of a lower precision work too, under autocast or not.

    Source: OFD (Heo et al., ICCV 2019), section 3.1; initialisation of their code.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.normal_(self[0].weight, 0.0, math.sqrt(2.0 / out_channels))

    def forward(self, feat: Tensor) -> Tensor:
        return super().forward(feat if autocast_is_on(feat.device.type) else feat.to(self[0].weight.dtype))
