"""Connectors: student maps or tokens at the teacher's channels."""

from __future__ import annotations

import math

from torch import Tensor, nn

from mmlckd.compatibility import autocast_is_on, not_compiled
from mmlckd.functional import AffineMap, folded
from mmlckd.functional.folding import pays


class Connector(nn.Sequential):
    """1 x 1 convolution without bias and batch norm.

    Maps (B, in_channels, H, W) become (B, out_channels, H, W); tokens (B, N, in_channels) become (B, N, out_channels).
    Tokens are taken as a map of N positions, so the convolution is a linear map of each token, and the norm's
    statistics are those of all tokens of the batch. One connector serves tokens with and without a grid.

    The norm of tokens is a batch norm and no layer norm: a layer norm would bring every token to the same length,
    and the lengths are part of what losses compare; a batch norm is one affine map for all tokens.

    The convolution starts from N(0, sqrt(2 / out_channels)). Lower precisions work too, under autocast or not.

    Source: OFD (Heo et al., ICCV 2019), section 3.1; initialisation of their code. Tokens: this project.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.normal_(self[0].weight, 0.0, math.sqrt(2.0 / out_channels))

    @not_compiled  # it runs over parts of the batch, and gains nothing by a graph
    def fold(self, feat: Tensor) -> AffineMap | Tensor:
        """What :meth:`forward` gives, not formed where that costs less: see :func:`mmlckd.functional.folded`."""
        return folded(feat, self[0].weight.flatten(1), self[1]) if pays(feat, self[1]) else self(feat)

    def forward(self, feat: Tensor) -> Tensor:
        if feat.dim() == 3:
            # One row of N columns. With N rows of one column torch's batch norm has wrong gradients (CPU, 2.0 to 2.10).
            return self(feat.mT.unsqueeze(2)).squeeze(2).mT
        return super().forward(feat if autocast_is_on(feat.device.type) else feat.to(self[0].weight.dtype))
