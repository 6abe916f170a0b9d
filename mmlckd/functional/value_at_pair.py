"""The value u^T M v at a given singular pair, differentiable once in both maps, in reverse and in forward mode."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from .pooling import needs_pooling, pool_rows, positions, unpool_rows

_TWICE = (
    'transmitting_norm has first derivatives only, since its gradient holds the singular vectors fixed: do not '
    'differentiate twice through it (create_graph, hessian, a jvp of a gradient), or take the largest of '
    'torch.linalg.svdvals(F_in @ F_out.mT / N) instead'
)


def value_at_pair(before: Tensor, after: Tensor, finite: Tensor) -> Tensor:
    """u^T F_in F_out^T v / N, sample by sample, of maps seen through the rows u and v of a singular pair.

    Args:
        before, after: (B, N), of :func:`seen_through`. Differentiable once.
        finite: (B, 1), which samples have a pair.

    Returns:
        (B,): NaN with a zero gradient where the pair is not finite.

    Raises:
        RuntimeError: A second derivative is taken.

    Source: this project. At a singular pair the derivatives of u and v drop out of the first derivative.
    """
    return _MeanProduct.apply(before, after).where(finite.squeeze(-1), torch.nan)


def seen_through(
    feat: Tensor,
    pooled: Tensor,
    row: Tensor,
    mean: Tensor | None,
    finite: Tensor,
    grid: tuple[int, int] | None,
    center: bool,
) -> Tensor:
    """A map through a row over its channels: (B, N), zero where the sample is not finite.

    Args:
        feat: x, a map (B, C, H, W) or tokens (B, N, C). Differentiable once.
        pooled: x, less the mean, (B, C, N) on the common grid, float32 or wider, without gradient.
        row: (B, 1, C). Differentiable once, with the mean.
        mean: (C,), what is subtracted from x; None for nothing.
        finite: (B, 1), which samples are.
        grid: (H, W) of the common grid; None where nothing is pooled.
        center: Subtract the mean over positions from the result. Its cotangents must then sum to zero over positions.
    """
    return _Seen.apply(feat, pooled, row, mean, finite, grid, center)


class _Seen(Function):
    """Linear in the map. It is computed from the pooled map, which is at hand; the derivatives are those in the map
    itself, which pooling and projection give in either order. With centring, its cotangents sum to zero over positions
    (they are multiples of another centred row), so that the transpose of the centring changes nothing.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(feat, pooled, row, mean, finite, grid, center):
        return _masked(torch.bmm(row, pooled).squeeze(1), finite, center)

    @staticmethod
    def setup_context(ctx, inputs, output):
        feat, pooled, row, mean, finite, grid, ctx.center = inputs
        ctx.dtype, ctx.shape, ctx.affine = feat.dtype, feat.shape, mean is not None
        ctx.grid = grid if needs_pooling(feat, grid) else None
        kept = feat if row.requires_grad else None
        ctx.save_for_backward(row, finite, mean, kept)
        ctx.save_for_forward(row, finite)

    @staticmethod
    def backward(ctx, grad):
        row, finite, mean, feat = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            if ctx.grid is not None:
                grad = unpool_rows(grad, ctx.shape[2:], ctx.grid)
            to_row = to_mean = None
            if feat is not None:
                offset = grad.sum(-1)
                to_row = torch.bmm(grad.unsqueeze(1), positions(feat).mT.to(grad.dtype))
                to_row = (to_row - offset.view(-1, 1, 1) * mean).where(finite.unsqueeze(-1), 0.0)
                to_mean = -(offset.unsqueeze(1) * row.squeeze(1)).sum(0)
        tokens = len(ctx.shape) == 3
        to_feat = grad.unsqueeze(-1) * row if tokens else (row.mT * grad.unsqueeze(1)).view(ctx.shape)
        return to_feat.to(ctx.dtype), None, to_row, to_mean, *[None] * 3

    @staticmethod
    def jvp(ctx, tangent, *_):
        if ctx.affine:
            raise RuntimeError('an AffineMap is differentiable in reverse mode only: take its dense() map')
        row, finite = ctx.saved_tensors
        seen = torch.bmm(row, positions(tangent).to(row.dtype)).squeeze(1)
        if ctx.grid is not None:
            seen = pool_rows(seen, ctx.shape[2:], ctx.grid)
        return _masked(seen, finite, ctx.center)


def _masked(seen: Tensor, finite: Tensor, center: bool) -> Tensor:
    seen = seen.where(finite, 0.0)
    return seen - seen.mean(-1, keepdim=True) if center else seen


class _MeanProduct(Function):
    """Mean over positions of two rows' product, (B, N) each. A derivative of its derivative raises."""

    generate_vmap_rule = True

    @staticmethod
    def forward(before, after):
        return (before * after).mean(-1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        before, after = _Once.apply(*ctx.saved_tensors)
        factor = grad.unsqueeze(-1) / before.shape[-1]
        return factor * after, factor * before

    @staticmethod
    def jvp(ctx, change_before, change_after):
        before, after = _Once.apply(*ctx.saved_tensors)
        return (change_before * after + before * change_after).mean(-1)


class _Once(Function):
    """The identity of two tensors, which marks that a first derivative holds the pair fixed, and so both of them.

    A derivative of either raises, also one in a map that the other alone depends on.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(before, after):
        return before.view_as(before), after.view_as(after)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *grads):
        raise RuntimeError(_TWICE)

    @staticmethod
    def jvp(ctx, *tangents):
        raise RuntimeError(_TWICE)
