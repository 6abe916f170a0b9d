"""Transmitting norm: how strongly a block stretches its input, read off its own feature maps."""

from __future__ import annotations

import torch
from torch import Tensor

from mmlckd.compatibility import not_compiled

from .affine_map import AffineMap
from .pooling import common_grid
from .sides import side_of
from .singular_pair import singular_pair
from .value_at_pair import value_at_pair


@not_compiled  # torch 2.10 cannot compile adaptive pooling to a size that changes
def transmitting_norm(
    feat_in: Tensor | AffineMap,
    feat_out: Tensor | AffineMap,
    num_iters: int = 10,
    center: bool = False,
    eps: float | None = None,
) -> Tensor:
    """Spectral norm of the transmitting matrix of two feature maps, one value per sample.

    With F_in (C_in x N) and F_out (C_out x N) the maps before and after a block, N positions each,

        M = F_in F_out^T / N,        s = sigma_max(M) = u^T M v.

    The singular pair (u, v) is found without gradient, and the value u^T M v is then differentiated. At a singular pair
    the derivatives of u and v drop out, so this is the exact gradient, a matrix of rank one a sample. Nothing of the
    iteration is kept for the backward pass.

    Args:
        feat_in: Map (B, C_in, H, W), or tokens (B, N, C_in). Differentiable once, in reverse and in forward mode.
        feat_out: Map (B, C_out, H', W') or tokens (B, N, C_out). Differentiable likewise. Where the two maps differ in
            size, the larger is average-pooled (adaptively) to the smaller. Tokens must agree in N.
            Either may be an :class:`AffineMap`, which is not formed: it costs what the map costs that it is made of,
            and is differentiable in reverse mode only.
        num_iters: Products with M^T M spent on the singular pair. On networks' features 10 leave an error below 1e-5.
            On independent noise, whose singular values crowd at the top, they leave up to several per cent, and 30
            below 1e-4. None are spent where the rank is at most 32, since the pair is exact then; nor on a GPU where
            B C^3 is at most 2^30, C the smaller number of channels: there M^T M is squared, which leaves at most 5e-6.
        center: Subtract each channel's mean over positions first. M is then a cross-covariance, and a constant offset
            of the maps does not count (a Lipschitz constant is about differences).
        eps: With ``center``, a map whose centred root mean square is below ``eps`` times its raw one counts as
            constant: norm and gradient are exactly zero. None means 8 times the machine epsilon.

    Returns:
        (B,), non-negative, in squared feature units; float64 for float64 maps and float32 otherwise, inside and outside
        autocast. Rounding leaves an error of about 1e-7 of |F_in| |F_out| / N (1e-16 in float64), with Frobenius norms.
        A map that is zero, or whose squares underflow (|F| below 1e-19, or 1e-154 in float64), gives zero and a zero
        gradient. A sample with a map that is not finite, or whose squares overflow, gives NaN and a zero gradient.

    Raises:
        ValueError: A map is not 3- or 4-dimensional, the batches differ, or tokens have unequal N.
        RuntimeError: A second derivative is taken.

    Source: LONDON (Shang et al., ICCV 2021), the transmitting matrix. ``center``, the iteration and the gradient are
    this project's.
    """
    grid = common_grid(feat_in, feat_out)
    dtype = torch.promote_types(torch.promote_types(feat_in.dtype, feat_out.dtype), torch.float32)
    with torch.autocast(feat_in.device.type, enabled=False):
        sides = [side_of(feat, grid, dtype, center) for feat in (feat_in, feat_out)]
        eps = 8 * torch.finfo(dtype).eps if eps is None else eps
        pair = singular_pair(sides[0].channels, sides[1].channels, num_iters, center, eps)
        before, after = (side.seen(row, pair.finite) for side, row in zip(sides, (pair.left, pair.right)))
        value = value_at_pair(before, after)
        for side, other in zip(sides, (after, before)):
            value = side.with_weights(value, other, pair.finite)
        return value.where(pair.finite.squeeze(-1), torch.nan)
