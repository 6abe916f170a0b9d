"""The top singular pair of a transmitting matrix, for a batch of pairs of maps."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .krylov import dominant_row, largest, leading_eigenvector, probe

_SMALL_RANK = 32  # up to this rank the small problem is solved exactly: a few squarings cost less than the iteration
_PRODUCT = 0.05  # price of a multiplication in a product of matrices, in numbers read: about the same on CPUs and GPUs


class SingularPair(NamedTuple):
    """What :func:`singular_pair` finds."""

    left: Tensor
    right: Tensor
    finite: Tensor


@torch.no_grad()
def singular_pair(feat_in: Tensor, feat_out: Tensor, num_iters: int, center: bool, eps: float) -> SingularPair:
    """Top singular pair of F_in F_out^T, sample by sample. Nothing waits for the device.

    Args:
        feat_in: (B, C_in, N).
        feat_out: (B, C_out, N).
        num_iters: Products with M^T M; none where the rank is at most 32.
        center: Subtract each channel's mean over positions first.
        eps: With ``center``, a map whose centred root mean square is below ``eps`` times its raw one counts as zero.

    Returns:
        ``left`` (B, 1, C_in) and ``right`` (B, 1, C_out), rows of length one, zero where the matrix is zero or not
        finite; ``finite`` (B, 1). Not differentiable.

    Source: this project; see :func:`mmlckd.functional.krylov.leading_eigenvector` for the iteration.
    """
    if feat_in.shape[1] < feat_out.shape[1]:  # the search runs over the second map's channels: let them be fewer
        right, left, finite = singular_pair(feat_out, feat_in, num_iters, center, eps)
        return SingularPair(left, right, finite)
    mean_in = feat_in.mean(-1, keepdim=True) if center else None
    mean_out = feat_out.mean(-1, keepdim=True) if center else None
    size_in, zero_in = _size(feat_in, mean_in, eps)
    size_out, zero_out = _size(feat_out, mean_out, eps)
    finite = size_in.isfinite() & size_out.isfinite()
    empty = zero_in | zero_out | ~finite
    scale = (size_in * size_out).where(~empty, 1.0).reciprocal()  # brings the operator's norm below one

    small = min(feat_out.shape[1:]) <= _SMALL_RANK
    form: Any = _small_form(feat_out) if small else _cheapest_form(feat_in, feat_out, num_iters)
    if mean_in is not None and mean_out is not None:
        # One centred map is enough, since its rows sum to zero and the other's means then cancel. It is centred twice:
        # far from zero, rounding leaves a mean after the first time.
        feat_out = feat_out - mean_out
        feat_out -= feat_out.mean(-1, keepdim=True)
        if form is _Gram:  # a Gram matrix is of one map alone
            feat_in = feat_in - mean_in
    product = form(feat_in, feat_out, scale)
    if small:
        right = product.leading_right()
    else:
        start = F.normalize(probe(feat_in.shape[1], feat_in), dim=0).expand(len(feat_in), 1, -1)
        right = leading_eigenvector(product.normal, _unit(product.to_out(start)), num_iters)

    right = _unit(right)
    left = _unit(product.to_in(right))
    found = (left.sum(-1, keepdim=True) + right.sum(-1, keepdim=True)).isfinite()
    nothing = empty | ~found
    finite = finite & (found | empty)
    return SingularPair(left.masked_fill(nothing, 0.0), right.masked_fill(nothing, 0.0), finite.squeeze(-1))


class _Maps:
    """M = F_in F_out^T, applied as two products with the maps.

    Row vectors throughout: a row times a matrix is what runs fastest on a CPU. ``scale`` times M has norm one or less.
    """

    def __init__(self, feat_in: Tensor, feat_out: Tensor, scale: Tensor):
        self.feat_in, self.feat_out, self.scale = feat_in, feat_out, scale

    @staticmethod
    def cost(channels_in: int, channels_out: int, positions: int, num_iters: int) -> float:
        """Numbers read by the iteration, and products of matrices at their price in such reads."""
        return num_iters * 2 * (channels_in + channels_out) * positions

    def to_in(self, row: Tensor) -> Tensor:
        """M v as a row, for a row v over the second map's channels."""
        return torch.bmm(torch.bmm(row, self.feat_out), self.feat_in.mT)

    def to_out(self, row: Tensor) -> Tensor:
        """M^T u as a row, for a row u over the first map's channels."""
        return torch.bmm(torch.bmm(row, self.feat_in), self.feat_out.mT)

    def normal(self, row: Tensor) -> Tensor:
        """M^T M v, scaled."""
        return self.to_out(self.to_in(row) * self.scale) * self.scale


class _Matrix(_Maps):
    """M is built."""

    def __init__(self, feat_in: Tensor, feat_out: Tensor, scale: Tensor):
        self.matrix, self.scale = feat_in @ feat_out.mT, scale

    @staticmethod
    def cost(channels_in: int, channels_out: int, positions: int, num_iters: int) -> float:
        return _PRODUCT * channels_in * channels_out * positions + num_iters * 2 * channels_in * channels_out

    def to_in(self, row: Tensor) -> Tensor:
        return torch.bmm(row, self.matrix.mT)

    def to_out(self, row: Tensor) -> Tensor:
        return torch.bmm(row, self.matrix)

    def leading_right(self) -> Tensor:
        """The right singular vector, from M^T M itself."""
        scaled = self.matrix * self.scale
        return dominant_row(scaled.mT @ scaled)


class _Gram(_Maps):
    """M^T M is applied as F_out (F_in^T F_in) F_out^T, through the Gram matrix over positions."""

    @staticmethod
    def cost(channels_in: int, channels_out: int, positions: int, num_iters: int) -> float:
        return _PRODUCT * channels_in * positions**2 + num_iters * (2 * channels_out + positions) * positions

    def __init__(self, feat_in: Tensor, feat_out: Tensor, scale: Tensor):
        super().__init__(feat_in, feat_out, scale)
        self.gram: Tensor | None = None  # built at its first use

    def normal(self, row: Tensor) -> Tensor:
        if self.gram is None:
            self.gram = self.feat_in.mT @ self.feat_in
        seen = torch.bmm(row, self.feat_out) * self.scale
        return torch.bmm(torch.bmm(seen, self.gram) * self.scale, self.feat_out.mT)

    def leading_right(self) -> Tensor:
        """The right singular vector z F_out^T, where the row z solves z (F_out^T F_out) (F_in^T F_in) = lambda z.

        The eigenvalue lambda is the square of a singular value that may be small beside the maps' sizes, when they
        hardly meet in a position. Float32 Gram matrices would lose it where the ratio is below 3e-4; float64 ones keep
        as many digits as M has in float32.
        """
        feat_in, feat_out, scale = self.feat_in.double(), self.feat_out.double(), self.scale.double()
        row = dominant_row((feat_out.mT @ feat_out * scale) @ (feat_in.mT @ feat_in * scale), together=2)
        return (row @ feat_out.mT).to(self.feat_out.dtype)


def _small_form(feat_out: Tensor) -> type[_Matrix | _Gram]:
    """The form whose small problem is the smaller one: over channels, or over positions."""
    return _Matrix if feat_out.shape[1] <= feat_out.shape[2] else _Gram


def _cheapest_form(feat_in: Tensor, feat_out: Tensor, num_iters: int) -> type[_Maps]:
    channels_in, channels_out, positions = feat_in.shape[1], feat_out.shape[1], feat_out.shape[2]
    forms: tuple[type[_Maps], ...] = (_Matrix, _Gram, _Maps)
    return min(forms, key=lambda form: form.cost(channels_in, channels_out, positions, num_iters))


def _size(feat: Tensor, mean: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Frobenius norm (B, 1, 1) of a map (B, C, N), and whether it counts as zero.

    The map is centred where means (B, C, 1) are given. The norm counts as zero if it is zero, if it is no more than
    rounding noise beside the means, or if its squares underflow.
    """
    if mean is None:
        size = torch.linalg.vector_norm(feat, dim=(1, 2), keepdim=True)
        noise = size.new_zeros(())
    else:
        sizes = []
        for part, shift in zip(feat.chunk(8, 1), mean.chunk(8, 1)):  # in parts, so that the map is not copied whole
            sizes.append(torch.linalg.vector_norm(part - shift, dim=(1, 2), keepdim=True))
        size = torch.linalg.vector_norm(torch.cat(sizes, 1), dim=1, keepdim=True)
        offset = math.sqrt(feat.shape[-1]) * torch.linalg.vector_norm(mean, dim=(1, 2), keepdim=True)
        noise = eps * torch.hypot(size, offset)
    return size, size <= noise.clamp_min(math.sqrt(torch.finfo(feat.dtype).tiny))


def _unit(row: Tensor) -> Tensor:
    return F.normalize(row / largest(row, -1), dim=-1)  # divided first, so that no square underflows or overflows
