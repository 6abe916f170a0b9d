"""Two maps brought to one grid of positions: by average pooling, forward and transposed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .affine_map import AffineMap


def common_grid(feat_in: Tensor | AffineMap, feat_out: Tensor | AffineMap) -> tuple[int, int] | None:
    """The (H, W) to which both maps are pooled; None where nothing needs pooling.

    Args:
        feat_in, feat_out: Maps (B, C, H, W) or tokens (B, N, C). Not read, apart from their shapes.

    Raises:
        ValueError: A map is not 3- or 4-dimensional, the batches differ, or tokens have unequal N.
    """
    for name, feat in (('feat_in', feat_in), ('feat_out', feat_out)):
        if feat.dim() not in (3, 4):
            raise ValueError(f'{name} has shape {tuple(feat.shape)}: give a map (B, C, H, W) or tokens (B, N, C)')
    if len(feat_in) != len(feat_out):
        raise ValueError(f'feat_in holds {len(feat_in)} samples and feat_out {len(feat_out)}: give both the same batch')
    if feat_in.dim() == feat_out.dim() == 4:
        if feat_in.shape[2:] == feat_out.shape[2:]:
            return None
        return min(feat_in.shape[2], feat_out.shape[2]), min(feat_in.shape[3], feat_out.shape[3])
    counts = [count_positions(feat) for feat in (feat_in, feat_out)]
    if counts[0] != counts[1]:
        raise ValueError(
            f'feat_in has {counts[0]} positions and feat_out {counts[1]}, and tokens cannot be pooled: '
            'reshape them to maps (B, C, H, W), or name their `grid` on the tap'
        )
    return None


def positions(feat: Tensor) -> Tensor:
    """(B, C, N): a map (B, C, H, W) or tokens (B, N, C) as channels by positions; a view where the memory allows it."""
    return feat.flatten(2) if feat.dim() == 4 else feat.mT


def like_map(rows: Tensor, feat: Tensor) -> Tensor:
    """What :func:`positions` would turn into ``rows``, (B, C, N): a map or tokens of the shape of ``feat``. A view."""
    return rows.unflatten(2, feat.shape[2:]) if feat.dim() == 4 else rows.mT


def count_positions(feat: Tensor | AffineMap) -> int:
    """How many positions a map (B, C, H, W), or tokens (B, N, C), have."""
    return feat.shape[2] * feat.shape[3] if feat.dim() == 4 else feat.shape[1]


def needs_pooling(feat: Tensor, grid: tuple[int, int] | None) -> bool:
    """Whether a map has another size than the grid."""
    return grid is not None and tuple(feat.shape[2:]) != grid


@torch.no_grad()
def pool(feat: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """Adaptive average pooling of a map (B, C, H, W) to the grid, not differentiable.

    Where the sizes divide, row slices are added and one product a quarter of the batch adds the columns: on a CPU this
    is nearly ten times as fast as torch's pooling, and it takes little memory beside its result.
    """
    if grid is None or not needs_pooling(feat, grid):
        return feat
    (height, width), (rows, cols) = feat.shape[2:], grid
    if height % rows or width % cols:
        return F.adaptive_avg_pool2d(feat, grid)
    step = height // rows
    average = torch.eye(cols, device=feat.device, dtype=feat.dtype).repeat_interleave(width // cols, 0)
    average *= rows * cols / (height * width)
    pooled = feat.new_empty(*feat.shape[:2], *grid)
    for part, target in zip(feat.chunk(4), pooled.chunk(4)):
        part = sum((part[:, :, i::step] for i in range(1, step)), part[:, :, ::step])
        torch.mm(part.reshape(-1, width), average, out=target.view(-1, cols))
    return pooled


def pool_rows(rows: Tensor, size: torch.Size, grid: tuple[int, int]) -> Tensor:
    """Adaptive average pooling of rows (B, H W), over a map of that size, to rows over the grid. Differentiable."""
    return F.adaptive_avg_pool2d(rows.unflatten(1, size).unsqueeze(1), grid).flatten(1)


def unpool_rows(rows: Tensor, size: torch.Size, grid: tuple[int, int]) -> Tensor:
    """The transpose of :func:`pool_rows`: rows over the grid to rows (B, H W)."""
    down, across = (_averages(count, cells, rows) for count, cells in zip(size, grid))
    return (down.mT @ rows.unflatten(1, grid) @ across).flatten(1)


def _averages(count: int, cells: int, like: Tensor) -> Tensor:
    """The matrix (cells, count) of adaptive average pooling along one axis."""
    eye = torch.eye(count, device=like.device, dtype=like.dtype)
    return F.adaptive_avg_pool1d(eye.unsqueeze(0), cells).squeeze(0).mT
