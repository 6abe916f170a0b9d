"""Tokens laid out as maps: which grid of positions they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

MOST_CLASS_TOKENS = 5  # DINOv2 has one and four registers; others have 1 or 2


def lay_out(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    """Tokens (B, N, C) as a map (B, C, H, W), without the leading N - H * W class tokens.

    Args:
        tokens: The tokens, row by row after the class tokens.
        grid: (H, W), with H * W <= N < 2 * H * W, or H * W = 1.

    Raises:
        ValueError: The tokens do not fit the grid.
    """
    height, width = grid
    count = height * width
    fits = tokens.dim() == 3 and count <= tokens.shape[1] and (tokens.shape[1] < 2 * count or count == 1)
    if not fits:
        raise ValueError(
            f'tokens (B, N, C) with N >= H * W are needed, and fewer class tokens than the {count} of the grid'
        )
    return tokens[:, -count:].mT.unflatten(2, (height, width))


def grid_beside(tokens: Tensor, beside: Any) -> tuple[int, int] | None:
    """The (H, W) that a module gives or takes beside its tokens (B, N, C), as Swin's stages do; None: it is no grid."""
    if not isinstance(beside, (list, tuple)) or len(beside) != 2:
        return None
    sides = [int(side) for side in beside if isinstance(side, int) or (isinstance(side, Tensor) and side.numel() == 1)]
    if len(sides) != 2 or not 0 <= tokens.shape[1] - sides[0] * sides[1] <= MOST_CLASS_TOKENS:
        return None
    return sides[0], sides[1]


def find_grid(count: int, image_size: Sequence[int] | None) -> tuple[int, int] | None:
    """The (H, W) of ``count`` tokens of an image.

    The patches are squares of some side s, so H x W is the image's height and width over s, both rounded down or both
    rounded up. The fewest class tokens for which there is such a grid are assumed, at most ``MOST_CLASS_TOKENS``.

    Args:
        count: Number of tokens, class tokens among them.
        image_size: (height, width) of the image in px. None: it is square.

    Returns:
        (H, W), or None where no grid fits.

    Source: this project.
    """
    height, width = image_size or (1, 1)
    for patches in range(count, max(count - MOST_CLASS_TOKENS, 1) - 1, -1):
        grids = [grid for grid in _factors(patches) if _same_patches(*grid, height, width)]
        if grids:
            return min(grids, key=lambda grid: abs(grid[0] * width - grid[1] * height))
    return None


def _factors(product: int) -> Iterator[tuple[int, int]]:
    for one in range(1, math.isqrt(product) + 1):
        if product % one == 0:
            yield from {(one, product // one), (product // one, one)}


def _same_patches(rows: int, columns: int, height: int, width: int) -> bool:
    """Whether one side of square patches gives these rows and columns, rounded down on both axes or up on both."""
    # rows = floor(height / s) holds for height / (rows + 1) < s <= height / rows; compared as whole numbers
    down = height * columns < width * (rows + 1) and width * rows < height * (columns + 1)
    # rows = ceil(height / s) holds for height / rows <= s < height / (rows - 1)
    up = height * (columns - 1) < width * rows and width * (rows - 1) < height * columns
    return down or up
