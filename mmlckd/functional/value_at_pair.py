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
    value, _, _ = _ValueAtPair.apply(feat_in, feat_out, pooled_in, pooled_out, *pair, grid, center)
    return value.where(pair.finite.squeeze(-1), torch.nan)


class _ValueAtPair(Function):
    """The maps seen through the pair, u F_in and v F_out, are outputs as well: all that the derivatives need is kept,
    and what depends on them tells a second derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(feat_in, feat_out, pooled_in, pooled_out, left, right, finite, grid, center):
        before, after = _seen(left, pooled_in, finite, center), _seen(right, pooled_out, finite, center)
        return (before * after).mean(-1), before, after

    @staticmethod
    def setup_context(ctx, inputs, output):
        feat_in, feat_out, _, _, left, right, finite, ctx.grid, ctx.center = inputs
        _, before, after = output
        ctx.shapes = feat_in.shape, feat_out.shape
        ctx.pooled = needs_pooling(feat_in, ctx.grid), needs_pooling(feat_out, ctx.grid)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(left, right, finite, before, after)
        ctx.save_for_forward(left, right, finite, before, after)

    @staticmethod
    def backward(ctx, grad, *_):
        if grad is None:
            return (None,) * 9
        left, right, _, before, after = ctx.saved_tensors
        factor = grad.unsqueeze(-1) / after.shape[-1]
        grad_in = grad_out = None
        if ctx.needs_input_grad[0]:
            grad_in = _pull_back(left, factor * _Once.apply(after), ctx.shapes[0], ctx.grid if ctx.pooled[0] else None)
        if ctx.needs_input_grad[1]:
            grad_out = _pull_back(
                right, factor * _Once.apply(before), ctx.shapes[1], ctx.grid if ctx.pooled[1] else None
            )
        return grad_in, grad_out, *[None] * 7

    @staticmethod
    def jvp(ctx, tangent_in, tangent_out, *_):
        left, right, finite, before, after = ctx.saved_tensors
        d_before, d_after = torch.zeros_like(before), torch.zeros_like(after)
        if tangent_in is not None:
            d_before = _push(left, tangent_in, finite, ctx.grid if ctx.pooled[0] else None, ctx.center)
        if tangent_out is not None:
            d_after = _push(right, tangent_out, finite, ctx.grid if ctx.pooled[1] else None, ctx.center)
        change = (d_before * _Once.apply(after) + _Once.apply(before) * d_after).mean(-1)
        return change, d_before, d_after


class _Once(Function):
    """The identity, of which a derivative raises: it stands on what a first derivative holds fixed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor):
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError(_TWICE)

    @staticmethod
    def jvp(ctx, tangent):
        raise RuntimeError(_TWICE)


def _seen(row: Tensor, pooled: Tensor, finite: Tensor, center: bool) -> Tensor:
    """A map through a row over its channels: (B, N), zero where the sample is not finite."""
    seen = torch.bmm(row, pooled).squeeze(1).where(finite, 0.0)
    return seen - seen.mean(-1, keepdim=True) if center else seen


def _push(row: Tensor, tangent: Tensor, finite: Tensor, grid: tuple[int, int] | None, center: bool) -> Tensor:
    """What :func:`_seen` becomes for a tangent of the map."""
    seen = torch.bmm(row, positions(tangent)).squeeze(1)
    seen = seen if grid is None else pool_rows(seen, tangent.shape[2:], grid)
    seen = seen.where(finite, 0.0)
    return seen - seen.mean(-1, keepdim=True) if center else seen


def _pull_back(row: Tensor, seen: Tensor, shape: torch.Size, grid: tuple[int, int] | None) -> Tensor:
    """The transpose of :func:`_push`: a matrix of rank one a sample, in the map's shape.

    With centring, rows of length N that sum to zero come in, so that the transpose of the centring changes nothing.
    """
    if len(shape) == 3:
        return seen.unsqueeze(-1) * row
    if grid is not None:
        with torch.autocast(seen.device.type, enabled=False):
            seen = unpool_rows(seen, shape[2:], grid)
    return (row.mT * seen.unsqueeze(1)).unflatten(2, shape[2:])
