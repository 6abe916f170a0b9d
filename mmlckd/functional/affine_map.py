"""A connected map that is not formed: an affine map of the student's feature, applied where and when it is needed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .launches import bound_by_launches

# How many numbers are formed at a time. On a CPU they should fit a cache; a GPU wants few products, and large ones.
_CPU_PART, _GPU_PART = 2**18, 2**24


class AffineMap:
    """The map A (x - mean) + bias, at every position of a map x.

    Args:
        feat: x, a map (B, C_in, H, W) or tokens (B, N, C_in).
        weight: A, (C_out, C_in), float32 or wider.
        mean: (C_in,). What is subtracted first, so that nothing is lost where x is far from zero.
        bias: (C_out,).

    All of them are differentiable.

    Source: this project.
    """

    def __init__(self, feat: Tensor, weight: Tensor, mean: Tensor, bias: Tensor):
        self.feat, self.weight, self.mean, self.bias = feat, weight, mean, bias

    @property
    def shape(self) -> torch.Size:
        """The shape that the map would have."""
        size = list(self.feat.shape)
        size[2 if len(size) == 3 else 1] = len(self.bias)
        return torch.Size(size)

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.feat.device

    def dim(self) -> int:
        return self.feat.dim()

    def __len__(self) -> int:
        return len(self.feat)

    def dense(self) -> Tensor:
        """The map itself. Differentiable."""
        channels_last = self.feat if self.feat.dim() == 3 else self.feat.movedim(1, -1)
        mapped = (channels_last.to(self.dtype) - self.mean) @ self.weight.mT + self.bias
        return mapped if self.feat.dim() == 3 else mapped.movedim(-1, 1)


def outline(feat: Tensor | AffineMap) -> Tensor:
    """A tensor of the shape and type of a map, without numbers or memory: what is left of a map that was compared."""
    return torch.empty(feat.shape, dtype=feat.dtype, device='meta')


def parts(size: torch.Size, channels: int, device: torch.device) -> Iterator[tuple[slice, list[slice]]]:
    """Parts in which a map (B, C, N) is formed at ``channels``: some samples each, with slices of their positions.

    Samples come together with all their positions, or one by one where a sample alone is too large.
    """
    batch, _, count = size
    room = _CPU_PART if device.type == 'cpu' else _GPU_PART
    together, step = max(1, room // (channels * count)), max(1, room // channels)
    step = count if together > 1 else min(step, count)
    cells = [slice(start, start + step) for start in range(0, count, step)]
    for first in range(0, batch, together):
        yield slice(first, first + together), cells


def add_products(total: Tensor, left: Tensor, right: Tensor, by_mean: bool = False) -> None:
    """Add left @ right of all samples to a matrix (M, K) in place.

    Args:
        total: (M, K).
        left, right: (B, M, N), (B, N, K).
        by_mean: Form the mean over all B N terms first, for products in half precision, where the sum may be too large.
    """
    count = len(left) * left.shape[2]
    if bound_by_launches(total):  # torch's addbmm starts a product for each sample
        left, right = left.transpose(0, 1).flatten(1).unsqueeze(0), right.flatten(0, 1).unsqueeze(0)
    if by_mean:
        total += count * torch.addbmm(total, left, right, beta=0, alpha=1 / count)
    else:
        total.addbmm_(left, right)


def centred_part(feat: Tensor, mean: Tensor, rows: slice, cells: slice) -> Tensor:
    """x - mean at some samples and positions of (B, C, N), in the mean's precision."""
    return feat[rows, :, cells] - mean.unsqueeze(1)
