"""The value u^T M v at a given singular pair, differentiable once in both maps, in reverse and in forward mode."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from .pooling import needs_pooling, pool_rows, positions, unpool_rows
from .singular_pair import SingularPair

_TWICE = (
    'transmitting_norm has first derivatives only, since its gradient holds the singular vectors fixed: do not '
    'differentiate twice through it (create_graph, hessian, a jvp of a gradient), or take the largest of '
    'torch.linalg.svdvals(F_in @ F_out.mT / N) instead'
)


def value_at_pair(
    feat_in: Tensor,
    feat_out: Tensor,
    pooled_in: Tensor,
    pooled_out: Tensor,
    pair: SingularPair,
    grid: tuple[int, int] | None,
    center: bool,
) -> Tensor:
    """u^T F_in F_out^T v / N for rows u and v of length one, sample by sample.

    Args:
        feat_in, feat_out: Maps (B, C, H, W) or tokens (B, N, C). Differentiable once.
        pooled_in, pooled_out: The same, (B, C, N) on the common grid, without gradient.
        pair: Of :func:`~mmlckd.functional.singular_pair.singular_pair`.
        grid: (H, W) of the common grid; None where nothing is pooled.
        center: Whether the maps are centred over positions.

    Returns:
        (B,): NaN with a zero gradient where the pair is not finite.

    Raises:
        RuntimeError: A second derivative is taken.

    Source: this project. At a singular pair the derivatives of u and v drop out of the first derivative.
    """
    before = _Seen.apply(feat_in, pooled_in, pair.left, pair.finite, grid, center)
    after = _Seen.apply(feat_out, pooled_out, pair.right, pair.finite, grid, center)
    return _MeanProduct.apply(before, after).where(pair.finite.squeeze(-1), torch.nan)


class _Seen(Function):
    """A map through a row over its channels: (B, N), zero where the sample is not finite. Linear in the map.

    It is computed from the pooled map, which is at hand; the derivatives are those in the map itself, which pooling
    and projection give in either order. With centring, its cotangents sum to zero over positions (they are multiples of
    another centred row), so that the transpose of the centring changes nothing.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(feat, pooled, row, finite, grid, center):
        return _masked(torch.bmm(row, pooled).squeeze(1), finite, center)

    @staticmethod
    def setup_context(ctx, inputs, output):
        feat, _, row, finite, grid, ctx.center = inputs
        ctx.shape = feat.shape
        ctx.grid = grid if needs_pooling(feat, grid) else None
        ctx.save_for_backward(row, finite)
        ctx.save_for_forward(row, finite)

    @staticmethod
    def backward(ctx, grad):
        row, _ = ctx.saved_tensors
        if len(ctx.shape) == 3:
            return grad.unsqueeze(-1) * row, *[None] * 5
        if ctx.grid is not None:
            with torch.autocast(grad.device.type, enabled=False):
                grad = unpool_rows(grad, ctx.shape[2:], ctx.grid)
        return (row.mT * grad.unsqueeze(1)).view(ctx.shape), *[None] * 5

    @staticmethod
    def jvp(ctx, tangent, *_):
        row, finite = ctx.saved_tensors
        seen = torch.bmm(row, positions(tangent)).squeeze(1)
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
