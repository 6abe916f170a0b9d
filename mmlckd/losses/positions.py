"""Maps and tokens seen alike: (B, C, N), with N positions."""

from __future__ import annotations

from torch import Tensor

from mmlckd.functional import pooling


def positions(feat: Tensor) -> Tensor:
    """(B, C, N) view of a map (B, C, H, W) or of tokens (B, N, C).

    Raises:
        ValueError: It is neither.
    """
    if feat.dim() not in (3, 4):
        raise ValueError(f'a tapped map is {tuple(feat.shape)}: this loss needs maps (B, C, H, W) or tokens (B, N, C)')
    return pooling.positions(feat)


def as_map(feat: Tensor) -> Tensor:
    """(B, C, N, 1) view of tokens (B, N, C); everything else as it is."""
    return feat.mT.unsqueeze(3) if feat.dim() == 3 else feat


def pooled_alike(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, N) and (B, C', N) of two maps, average-pooled (adaptively) to the smaller height and width of the two.

    Tokens cannot be pooled, so they need as many positions as the other side. Differentiable.

    Raises:
        ValueError: The positions of tokens differ.
    """
    if first.dim() == second.dim() == 4 and first.shape[2:] != second.shape[2:]:
        height, width = map(min, first.shape[2:], second.shape[2:])
        grid = (height, width)
        first, second = (
            feat if feat.shape[2:] == grid else pooling.average_pool(feat, grid) for feat in (first, second)
        )
    first, second = positions(first), positions(second)
    if first.shape[2] != second.shape[2]:
        raise ValueError(
            f'maps of {first.shape[2]} and {second.shape[2]} positions meet, and tokens cannot be pooled: '
            "set grid='auto' on their taps"
        )
    return first, second
