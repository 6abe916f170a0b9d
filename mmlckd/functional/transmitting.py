"""Transmitting norm: how strongly a block stretches its input, read off its own feature maps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .krylov import dominant_row, leading_eigenvector, probe

_PRODUCT = 0.05  # price of a multiplication in a product of matrices, in numbers read: about the same on CPUs and GPUs
_SMALL_RANK = (
    32  # up to this rank the small problem itself is solved, exactly: a few squarings cost less than the iteration
)


@torch.compiler.disable  # torch 2.10 cannot compile adaptive pooling to a size that changes; the steps around this one compile
def transmitting_norm(
    feat_in: Tensor, feat_out: Tensor, num_iters: int = 10, center: bool = False, eps: float | None = None
) -> Tensor:
    """Spectral norm of the transmitting matrix of two feature maps, one value per sample.

    With F_in (C_in x N) and F_out (C_out x N) the maps before and after a block, N positions each,

        M = F_in F_out^T / N,        s = sigma_max(M) = u^T M v.

    The singular pair (u, v) is found without gradient and the value u^T M v is then differentiated. At a
    singular pair the derivatives of u and v drop out, so this is the exact gradient, a rank-one matrix a sample,
    and nothing of the iteration is kept for the backward pass.

    Args:
        feat_in: Map (B, C_in, H, W), or tokens (B, N, C_in). Differentiable.
        feat_out: Map (B, C_out, H', W') or tokens (B, N, C_out). Differentiable. Where the two maps differ in size
            the larger is average-pooled (adaptively) to the smaller; tokens must agree in N.
        num_iters: Products with M^T M spent on the singular pair; none where the rank is at most 32, since the pair is exact then.
            On networks' features 10 leave an error below 1e-5; on independent noise, whose singular values crowd at the
            top, up to several per cent, and 30 below 1e-4.
        center: Subtract each channel's mean over positions first, so that M is a cross-covariance and a constant
            offset of the maps does not count (a Lipschitz constant is about differences).
        eps: With ``center``, a map whose centred root mean square is below ``eps`` times its raw one counts as
            constant: norm and gradient are exactly zero. None means 8 times the machine epsilon.

    Returns:
        (B,), non-negative, in squared feature units; float64 for float64 maps and float32 otherwise, inside and
        outside autocast. Zero maps give zero and a zero gradient; a sample with maps that are not finite, or whose
        squares overflow, NaN and a zero gradient.

    Raises:
        ValueError: The maps are not 3- or 4-dimensional, differ in batch size, or are tokens of unequal N.

    Source: LONDON (Shang et al., ICCV 2021), the transmitting matrix. ``center``, the iteration and the gradient
    are this project's.
    """
    _check(feat_in, feat_out)
    dtype = torch.promote_types(torch.promote_types(feat_in.dtype, feat_out.dtype), torch.float32)
    with torch.autocast(feat_in.device.type, enabled=False):
        feat_in, feat_out = feat_in.to(dtype), feat_out.to(dtype)
        grid = _common_grid(feat_in, feat_out)
        pooled_in, pooled_out = _pool(feat_in.detach(), grid), _pool(feat_out.detach(), grid)
        left, right, finite = _singular_pair(
            _positions(pooled_in),
            _positions(pooled_out),
            num_iters,
            center,
            8 * torch.finfo(dtype).eps if eps is None else eps,
        )
        # Pooling commutes with a projection onto one channel: with gradient, only that one channel is pooled.
        before = _project(left, feat_in if feat_in.requires_grad else pooled_in, grid).where(finite, 0.0)
        after = _project(right, feat_out if feat_out.requires_grad else pooled_out, grid).where(finite, 0.0)
        if center:
            before = before - before.mean(-1, keepdim=True)
            after = after - after.mean(-1, keepdim=True)
        return (before * after).mean(-1).where(finite.squeeze(-1), torch.nan)


@torch.no_grad()
def _singular_pair(
    feat_in: Tensor, feat_out: Tensor, num_iters: int, center: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows (B, 1, C_in) and (B, 1, C_out) of the top singular value of F_in F_out^T, zero for a matrix that is zero or
    not finite; and (B, 1), whether it is finite."""
    if feat_in.shape[1] < feat_out.shape[1]:  # the iteration runs on the second map's channels: let them be fewer
        right, left, finite = _singular_pair(feat_out, feat_in, num_iters, center, eps)
        return left, right, finite
    mean_in, mean_out = (feat.mean(-1, keepdim=True) if center else None for feat in (feat_in, feat_out))
    size_in, flat_in = _size(feat_in, mean_in, eps)
    size_out, flat_out = _size(feat_out, mean_out, eps)
    finite = size_in.isfinite() & size_out.isfinite()
    empty = flat_in | flat_out | ~finite
    scale = (size_in * size_out).where(~empty, 1.0).reciprocal()  # brings the operator's norm below one
    channels_in, channels_out, positions = feat_in.shape[1], feat_out.shape[1], feat_in.shape[2]
    small = min(channels_out, positions) <= _SMALL_RANK

    # M = F_in F_out^T as a matrix; or through the positions' Gram matrix, M^T M = F_out (F_in^T F_in) F_out^T; or as two products
    # with the maps. Whichever reads and multiplies least. Row vectors throughout: a row times a matrix is what runs fastest on a CPU.
    if small:
        form = 'matrix' if channels_out <= positions else 'gram'
    else:
        form = _cheapest(channels_in, channels_out, positions, num_iters)
    if center:  # one map: the other's means then meet rows that sum to zero; twice, or far from zero rounding would leave a mean.
        feat_out = feat_out - mean_out
        feat_out -= feat_out.mean(-1, keepdim=True)
        feat_in = feat_in - mean_in if form == 'gram' else feat_in
    matrix = feat_in @ feat_out.mT if form == 'matrix' else None
    gram = feat_in.mT @ feat_in if form == 'gram' else None

    def to_in(row: Tensor) -> Tensor:
        return torch.bmm(row, matrix.mT) if form == 'matrix' else torch.bmm(torch.bmm(row, feat_out), feat_in.mT)

    def to_out(row: Tensor) -> Tensor:
        return torch.bmm(row, matrix) if form == 'matrix' else torch.bmm(torch.bmm(row, feat_in), feat_out.mT)

    def normal(row: Tensor) -> Tensor:
        if form == 'gram':
            return torch.bmm(torch.bmm(torch.bmm(row, feat_out) * scale, gram) * scale, feat_out.mT)
        return to_out(to_in(row) * scale) * scale

    if small and form == 'matrix':
        right = dominant_row((matrix.mT * scale) @ (matrix * scale))
    elif small:  # a row z with z F_out^T F_out F_in^T F_in = lambda z gives the row z F_out^T
        right = dominant_row((feat_out.mT @ feat_out * scale) @ (gram * scale)) @ feat_out.mT
    else:
        start = to_out(probe(channels_in, feat_in).expand(len(feat_in), 1, -1))
        right = leading_eigenvector(normal, _unit(start), num_iters)
    left = to_in(right)
    return _unit(left).masked_fill(empty, 0.0), _unit(right).masked_fill(empty, 0.0), finite.squeeze(-1)


def _cheapest(channels_in: int, channels_out: int, positions: int, iters: int) -> str:
    """How M^T M is applied at the least cost: numbers read in the iteration, and products of matrices at their price in such reads."""
    costs = {
        'matrix': _PRODUCT * channels_in * channels_out * positions + iters * 2 * channels_in * channels_out,
        'gram': _PRODUCT * channels_in * positions**2 + iters * (2 * channels_out + positions) * positions,
        'maps': iters * 2 * (channels_in + channels_out) * positions,
    }
    return min(costs, key=costs.get)


def _check(feat_in: Tensor, feat_out: Tensor) -> None:
    for name, feat in (('feat_in', feat_in), ('feat_out', feat_out)):
        if feat.dim() not in (3, 4):
            raise ValueError(f'{name} has shape {tuple(feat.shape)}: a map (B, C, H, W) or tokens (B, N, C) is needed')
    if len(feat_in) != len(feat_out):
        raise ValueError(f'feat_in holds {len(feat_in)} samples and feat_out {len(feat_out)}: give both the same batch')


def _common_grid(feat_in: Tensor, feat_out: Tensor) -> tuple[int, int] | None:
    """The size both maps are pooled to; None where nothing needs pooling."""
    if feat_in.dim() == feat_out.dim() == 4:
        grid = tuple(min(sizes) for sizes in zip(feat_in.shape[2:], feat_out.shape[2:]))
        return None if feat_in.shape[2:] == feat_out.shape[2:] else grid
    counts = [feat[0, 0].numel() if feat.dim() == 4 else feat.shape[1] for feat in (feat_in, feat_out)]
    if counts[0] != counts[1]:
        raise ValueError(
            f'feat_in has {counts[0]} positions and feat_out {counts[1]}, and tokens cannot be pooled: '
            'reshape them to maps (B, C, H, W), or name their `grid` on the tap'
        )
    return None


@torch.no_grad()
def _pool(feat: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """Adaptive average pooling, not differentiable; whole-number ratios as sums of row slices and one product a
    quarter of the batch, which on a CPU is nearly ten times as fast and takes little beside its result."""
    if grid is None or feat.shape[2:] == grid:
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


def _positions(feat: Tensor) -> Tensor:
    """(B, C, N) view of a map or of tokens."""
    return feat.flatten(2) if feat.dim() == 4 else feat.mT


def _project(channel: Tensor, feat: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """channel F for unit rows (B, 1, C), pooled to the grid: (B, N)."""
    projected = torch.bmm(channel, _positions(feat))
    if grid is not None and feat.shape[2:] != grid:
        projected = F.adaptive_avg_pool2d(projected.unflatten(2, feat.shape[2:]), grid)
    return projected.flatten(1)


def _size(feat: Tensor, mean: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Frobenius norm (B, 1, 1) of a map (B, C, N), centred where means (B, C, 1) are given; and whether it is zero, or rounding noise."""
    offset = feat.new_zeros(())
    parts = [feat]
    if mean is not None:
        parts = (
            part - shift for part, shift in zip(feat.chunk(8, 1), mean.chunk(8, 1))
        )  # so that no copy of the map is made
        offset = math.sqrt(feat.shape[-1]) * torch.linalg.vector_norm(mean, dim=(1, 2), keepdim=True)
    sizes = [torch.linalg.vector_norm(part, dim=(1, 2), keepdim=True) for part in parts]
    size = torch.linalg.vector_norm(torch.cat(sizes, 1), dim=1, keepdim=True)
    return size, size <= eps * torch.hypot(size, offset)


def _unit(row: Tensor) -> Tensor:
    row = row / row.abs().amax(-1, keepdim=True).clamp_min(
        torch.finfo(row.dtype).tiny
    )  # squares neither under- nor overflow
    return F.normalize(row, dim=-1)
