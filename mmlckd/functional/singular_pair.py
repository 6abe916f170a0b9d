"""The top singular pair of a transmitting matrix, for a batch of pairs of maps."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .krylov import dominant_row, leading_eigenvector, probe, unit
from .launches import bound_by_launches

_SMALL_RANK = 32  # up to this rank the small problem is solved exactly: a few squarings cost less than the iteration
_SQUARED = 2**30  # where launches count, squarings take the iteration's place if one costs B C^3 products up to this
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
        num_iters: Products with M^T M; none where the rank is at most 32, or M^T M is squared on a GPU.
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
    (mean_in, mean_out), sizes, zero = _sizes(feat_in, feat_out, center, eps)
    finite = sizes.isfinite().all(-1, keepdim=True)
    empty = zero.any(-1, keepdim=True) | ~finite
    scale = sizes.prod(-1, keepdim=True).where(~empty, 1.0).reciprocal()  # brings the operator's norm below one

    batch, channels, positions = feat_out.shape
    small = min(channels, positions) <= _SMALL_RANK
    squared = not small and bound_by_launches(feat_out) and batch * channels**3 <= _SQUARED
    form: Any = _Matrix if squared else _small_form(feat_out) if small else _cheapest_form(feat_in, feat_out, num_iters)
    if mean_in is not None and mean_out is not None:
        # One centred map is enough, since its rows sum to zero and the other's means then cancel. It is centred twice:
        # far from zero, rounding leaves a mean after the first time.
        feat_out = feat_out - mean_out
        feat_out -= feat_out.mean(-1, keepdim=True)
        if form is _Gram:  # a Gram matrix is of one map alone
            feat_in = feat_in - mean_in
    product = form(feat_in, feat_out, scale)
    if squared:
        # With 2^18 power iterations at most 5e-6 of the norm is lost, where hundreds of values crowd just below it.
        right = dominant_row(product.gram(), together=3, squarings=18)
    elif small:
        right = unit(product.leading_right())
    else:
        start = F.normalize(probe(feat_in.shape[1], feat_in), dim=0).expand(len(feat_in), 1, -1)
        right = unit(leading_eigenvector(product.normal, unit(product.to_out(start)), num_iters))

    left = unit(product.to_in(right))
    found = left.sum(-1, keepdim=True).isfinite()  # a right row that is not finite gives a left one that is not
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
        self.matrix = (feat_in @ feat_out.mT).mul_(scale)

    @staticmethod
    def cost(channels_in: int, channels_out: int, positions: int, num_iters: int) -> float:
        return _PRODUCT * channels_in * channels_out * positions + num_iters * 2 * channels_in * channels_out

    def to_in(self, row: Tensor) -> Tensor:
        return torch.bmm(row, self.matrix.mT)

    def to_out(self, row: Tensor) -> Tensor:
        return torch.bmm(row, self.matrix)

    def normal(self, row: Tensor) -> Tensor:
        return self.to_out(self.to_in(row))

    def gram(self) -> Tensor:
        """M^T M, scaled."""
        return self.matrix.mT @ self.matrix

    def leading_right(self) -> Tensor:
        """The right singular vector, from M^T M itself."""
        return dominant_row(self.gram())


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


def _sizes(
    feat_in: Tensor, feat_out: Tensor, center: bool, eps: float
) -> tuple[tuple[Tensor | None, Tensor | None], Tensor, Tensor]:
    """Means (B, C, 1) of both maps, Frobenius norms (B, 1, 2) of the maps less these, and which norms count as zero.

    A norm counts as zero if it is zero, if it is no more than rounding noise beside the means, or if its squares
    underflow. Without centring there are no means.
    """
    floor = math.sqrt(torch.finfo(feat_in.dtype).tiny)
    if not center:
        norms = [torch.linalg.vector_norm(feat, dim=(1, 2), keepdim=True) for feat in (feat_in, feat_out)]
        sizes = torch.cat(norms, -1)
        return (None, None), sizes, sizes <= floor
    spread = [_mean_and_size(feat) for feat in (feat_in, feat_out)]
    means = spread[0][0], spread[1][0]
    sizes = torch.cat([size for _, size in spread], -1)
    offsets = torch.cat([torch.linalg.vector_norm(mean, dim=(1, 2), keepdim=True) for mean in means], -1)
    noise = eps * torch.hypot(sizes, math.sqrt(feat_in.shape[-1]) * offsets)
    return means, sizes, sizes <= noise.clamp_min(floor)


def _mean_and_size(feat: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel's mean (B, C, 1), and the Frobenius norm (B, 1, 1) of the map (B, C, N) less that."""
    if len(feat) and bound_by_launches(feat):  # elsewhere this takes ten times as long
        variance, mean = torch.var_mean(feat, -1, correction=0, keepdim=True)
        return mean, (feat.shape[-1] * variance.sum((1, 2), keepdim=True)).sqrt()
    mean, sizes = feat.mean(-1, keepdim=True), []
    for part, shift in zip(feat.chunk(8, 1), mean.chunk(8, 1)):  # in parts, so that the map is not copied whole
        sizes.append(torch.linalg.vector_norm(part - shift, dim=(1, 2), keepdim=True))
    return mean, torch.linalg.vector_norm(torch.cat(sizes, 1), dim=1, keepdim=True)
