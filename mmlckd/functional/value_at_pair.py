"""The value u^T M v at a given singular pair, differentiable once in both maps, in reverse and in forward mode."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .pooling import needs_pooling, pool_rows, positions, unpool_rows

_TWICE = (
    'transmitting_norm has first derivatives only, since its gradient holds the singular vectors fixed: do not '
    'differentiate twice through it (create_graph, hessian, a jvp of a gradient), or take the largest of '
    'torch.linalg.svdvals(F_in @ F_out.mT / N) instead'
)


def value_at_pair(before: Tensor, after: Tensor) -> Tensor:
    """u^T F_in F_out^T v / N, sample by sample, of maps seen through the rows u and v of a singular pair.

    Args:
        before, after: (B, N), of :func:`seen_through`. Differentiable once.

    Returns:
        (B,).

    Raises:
        RuntimeError: A second derivative is taken.

    Source: this project. At a singular pair the derivatives of u and v drop out of the first derivative.
    """
    return _MeanProduct.apply(before, after)


def seen_through(
    feat: Tensor,
    pooled: Tensor,
    row: Tensor,
    finite: Tensor,
    grid: tuple[int, int] | None,
    center: bool,
) -> Tensor:
    """A map through a row over its channels: (B, N), zero where the sample is not finite.

    Args:
        feat: x, a map (B, C, H, W) or tokens (B, N, C). Differentiable once. It is not kept for that.
        pooled: x, or x less something constant, (B, C, N) on the common grid, float32 or wider, without gradient.
        row: (B, 1, C), without gradient.
        finite: (B, 1), which samples are.
        grid: (H, W) of the common grid; None where nothing is pooled.
        center: Subtract the mean over positions from the result. Its cotangents must then sum to zero over positions.
    """
    return _Seen.apply(feat, pooled, row, finite, grid, center)


def with_slope(value: Tensor, argument: Tensor, slope: Tensor) -> Tensor:
    """Numbers that depend on one more thing, by a slope that is known already.

    Args:
        value: (B,).
        argument: (B, K), what they depend on. Differentiable once, in reverse mode.
        slope: (B, K), their derivatives in it, without gradient.
    """
    return value + _Slope.apply(argument, slope)


class _Slope(Function):
    """Zero, with a given derivative."""

    @staticmethod
    def forward(argument, slope):
        return argument.new_zeros(len(argument))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (slope,) = ctx.saved_tensors
        return grad.unsqueeze(1) * slope, None

    @staticmethod
    def jvp(ctx, *_):
        raise RuntimeError('an AffineMap is differentiable in reverse mode only: take its dense() map')


class _Seen(Function):
    """Linear in the map. It is computed from the pooled map, which is at hand; the derivative is that in the map
    itself, which pooling and projection give in either order. With centring, its cotangents sum to zero over positions
    (they are multiples of another centred row), so that the transpose of the centring changes nothing.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(feat, pooled, row, finite, grid, center):
        return _masked(torch.bmm(row, pooled).squeeze(1), finite, center)

    @staticmethod
    def setup_context(ctx, inputs, output):
        feat, pooled, row, finite, grid, ctx.center = inputs
        ctx.dtype, ctx.shape = feat.dtype, feat.shape
        ctx.grid = grid if needs_pooling(feat, grid) else None
        ctx.save_for_backward(row)
        ctx.save_for_forward(row, finite)

    @staticmethod
    def backward(ctx, grad):
        (row,) = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            if ctx.grid is not None:
                grad = unpool_rows(grad, ctx.shape[2:], ctx.grid)
        tokens = len(ctx.shape) == 3
        to_feat = grad.unsqueeze(-1) * row if tokens else (row.mT * grad.unsqueeze(1)).view(ctx.shape)
        return to_feat.to(ctx.dtype), *[None] * 5

    @staticmethod
    def jvp(ctx, tangent, *_):
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
