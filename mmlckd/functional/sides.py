"""The two maps of a transmitting matrix: as the search for the singular pair sees them, and through its rows."""

from __future__ import annotations

import torch
from torch import Tensor

from .affine_map import AffineMap
from .pooling import pool, positions
from .value_at_pair import seen_through, with_slope


def side_of(
    feat: Tensor | AffineMap, grid: tuple[int, int] | None, dtype: torch.dtype, center: bool
) -> Side | AffineSide:
    """What stands for a map; arguments as in :class:`Side`."""
    if isinstance(feat, AffineMap):
        return AffineSide(feat, grid, dtype, center)
    return Side(feat, grid, dtype, center)


class Side:
    """A map at hand.

    Args:
        feat: A map (B, C, H, W) or tokens (B, N, C).
        grid: The common grid; None where nothing is pooled.
        dtype: In which everything is computed.
        center: Whether maps are centred over positions.

    Attributes:
        channels: (B, C, N) on the grid, without gradient: what the singular pair is searched on.
    """

    def __init__(self, feat: Tensor, grid: tuple[int, int] | None, dtype: torch.dtype, center: bool):
        self.feat, self.grid, self.center = feat, grid, center
        self.channels = positions(pool(feat.detach().to(dtype), grid))

    def seen(self, row: Tensor, finite: Tensor) -> Tensor:
        """(B, N), the map through rows (B, 1, C) over :attr:`channels`. Differentiable in the map."""
        return seen_through(self.feat, self.channels, row, finite, self.grid, self.center)

    def with_weights(self, value: Tensor, other: Tensor, finite: Tensor) -> Tensor:
        """The value at the pair, as it is: nothing but the map is in it."""
        return value


class AffineSide:
    """The same of a map A (x - mean) + bias that is not formed.

    Singular values do not change when channels are rotated. With Q R = A and Q of orthonormal columns, R (x - mean) can
    stand for the map, and it has the channels of x, not those of A. Without centring the bias is one more column of A,
    and x has one more channel of ones. A row over these channels is turned back by Q, and goes to x through A.

    The value is linear in that row. Its slope is known as soon as the other map is seen through its own row, so x need
    not be kept for the derivatives in A, mean and bias.

    Args, attributes: Those of :class:`Side`.

    Source: this project.
    """

    def __init__(self, feat: AffineMap, grid: tuple[int, int] | None, dtype: torch.dtype, center: bool):
        self.affine, self.grid, self.center = feat, grid, center
        with torch.no_grad():
            pooled = positions(pool(feat.feat.to(dtype), grid))
            self.shifted = pooled - feat.mean.to(dtype).unsqueeze(1)
            weight = feat.weight.to(dtype)
            if not center:
                weight = torch.cat([weight, feat.bias.to(dtype).unsqueeze(1)], 1)
            self.factors: tuple[Tensor, Tensor] | None = None
            if len(weight) > weight.shape[1]:
                self.factors = torch.geqrf(weight)
                weight = self.factors[0][: weight.shape[1]].triu()
            self.channels = weight[:, : self.shifted.shape[1]] @ self.shifted
            if not center:
                self.channels += weight[:, -1:]

    def seen(self, row: Tensor, finite: Tensor) -> Tensor:
        """(B, N), the map through rows (B, 1, C) over :attr:`channels`. Differentiable in x."""
        affine, rows = self.affine, row.squeeze(1)
        if self.factors is not None:
            padding = rows.new_zeros(len(rows), len(affine.bias) - rows.shape[1])
            rows = torch.ormqr(*self.factors, torch.cat([rows, padding], 1).mT).mT
        self.through = rows @ affine.weight.to(rows.dtype)
        # With centring the bias cancels. It stays in the graph, since DDP wants a gradient of every weight.
        self.offset = (rows @ affine.bias.to(rows.dtype)) * (0.0 if self.center else 1.0)
        through, offset = self.through.detach().unsqueeze(1), self.offset.detach().unsqueeze(1)
        seen = seen_through(affine.feat, self.shifted, through, finite, self.grid, self.center)
        return seen + offset.where(finite, 0.0)

    def with_weights(self, value: Tensor, other: Tensor, finite: Tensor) -> Tensor:
        """The value at the pair, (B,), differentiable in A, mean and bias, too.

        Args:
            value: The value.
            other: (B, N), the other map through its row.
            finite: (B, 1), which samples are.
        """
        mean = self.affine.mean.to(value.dtype).expand(len(value), -1)
        with torch.no_grad():
            total = other.mean(1, keepdim=True)  # zero with centring
            of_row = torch.bmm(other.unsqueeze(1), self.shifted.mT).squeeze(1) / other.shape[1]
            slope = torch.cat([of_row.where(finite, 0.0), total, -total * self.through], 1)
        return with_slope(value, torch.cat([self.through, self.offset.unsqueeze(1), mean], 1), slope)
