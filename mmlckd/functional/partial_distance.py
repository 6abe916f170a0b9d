"""OFD's distance: the squared distance to a rectified target, where the student is above it or it is positive."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mmlckd.compatibility import autocast_is_on

from .affine_map import AffineMap, centred_part, parts
from .pooling import like_map, positions


def partial_squared_distance(student: Tensor | AffineMap, target: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the entries with S > T' or T' > 0 of (S - T')^2, and which samples count in it.

    Args:
        student: S, a map (B, C, H, W) or tokens (B, N, C). Differentiable once.
        target: T', of the same shape, as wide as S or wider, and float32 at least. It is used up: what it holds
            afterwards is not defined.

    Returns:
        The sum, a scalar, and (B,), False for a sample that is not finite, or whose squares overflow. Such a sample is
        not in the sum, and has no gradient.

    Source: OFD (Heo et al., ICCV 2019), equation of section 3.2; how it is computed is this project's.
    """
    if isinstance(student, AffineMap):
        weight, mean, bias = (value.to(target.dtype) for value in (student.weight, student.mean, student.bias))
        return _OfAffine.apply(student.feat, weight, mean, bias, target)
    return _OfMap.apply(student, target)


def _where_asked(difference: Tensor, target: Tensor, out: Tensor) -> Tensor:
    """S - T' where it counts, and zero elsewhere. ``target`` is used up.

    By minima and maxima alone: selecting by a mask takes twenty times as long on a CPU.
    """
    # Below a target that is not positive nothing is asked. The floor of the difference is 0 there, and minus infinity
    # elsewhere.
    floor = target.clamp_min_(0.0).mul_(-torch.finfo(target.dtype).max)
    return torch.maximum(difference, floor, out=out)


class _OfMap(Function):
    """Of a map at hand. The differences, which the backward pass needs, overwrite ``target``."""

    @staticmethod
    def forward(ctx, student: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        for ours, theirs in zip(student.chunk(4), target.chunk(4)):  # in parts, to need little memory
            _where_asked(ours - theirs, theirs, out=theirs)
        # By channel first: one sum over all would lose digits.
        squares = torch.linalg.vector_norm(positions(target), dim=2).square().sum(1)
        finite = squares.isfinite()
        ctx.save_for_backward(target.nan_to_num_(0.0, 0.0, 0.0), finite)
        ctx.dtype = student.dtype
        ctx.mark_non_differentiable(finite)
        return squares.where(finite, 0.0).sum(), finite

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, _) -> tuple[Tensor, None]:
        difference, finite = ctx.saved_tensors
        factor = (2 * gradient * finite).view(-1, *[1] * (difference.dim() - 1))
        return (difference * factor).to(ctx.dtype), None


class _OfAffine(Function):
    """Of a map that is formed in parts. The derivatives of a part are taken at once; the backward pass scales them."""

    @staticmethod
    def forward(ctx, feat: Tensor, weight: Tensor, mean: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        seen, aims = positions(feat), positions(target)
        to_feat = torch.empty_like(seen, dtype=target.dtype)
        to_weight, to_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        squares = []
        for rows, all_cells in parts(aims.shape, aims.shape[1], target.device):
            # Several samples come with all their positions. One sample may come in pieces: whether it counts is seen
            # after the last.
            whole = len(all_cells) == 1
            of_weight, of_bias = (to_weight, to_bias) if whole else map(torch.zeros_like, (weight, bias))
            sums = target.new_zeros(())
            for cells in all_cells:
                centred, aim = centred_part(seen, mean, rows, cells), aims[rows, :, cells]
                batched = weight.expand(len(aim), -1, -1)
                difference = torch.baddbmm(bias.unsqueeze(1), batched, centred).to(target.dtype)  # half, by autocast
                _where_asked(difference.sub_(aim), aim, out=difference)
                # By channel first: one sum over all would lose digits.
                sums = sums + torch.linalg.vector_norm(difference, dim=2).square().sum(1)
                if not any(ctx.needs_input_grad):
                    continue
                difference.nan_to_num_(0.0, 0.0, 0.0).mul_(sums.isfinite().view(-1, 1, 1))
                _add_products(of_weight, difference, centred.mT)
                of_bias += difference.sum((0, 2))
                to_feat[rows, :, cells] = torch.bmm(batched.mT, difference)
            if not whole:
                finite = sums.isfinite()
                for value in (to_feat[rows], of_weight, of_bias):
                    value.nan_to_num_(0.0, 0.0, 0.0).mul_(finite)
                to_weight += of_weight
                to_bias += of_bias
            squares.append(sums)
        total = torch.cat(squares)
        finite = total.isfinite()
        ctx.save_for_backward(like_map(to_feat, feat), to_weight, -(to_bias @ weight), to_bias)
        ctx.dtype = feat.dtype
        ctx.mark_non_differentiable(finite)
        return total.where(finite, 0.0).sum(), finite

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, _) -> tuple[Tensor | None, ...]:
        derivative, *others = ctx.saved_tensors
        return (derivative * (2 * gradient)).to(ctx.dtype), *(2 * gradient * other for other in others), None


def _add_products(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add the products of all samples; under autocast they are taken in half precision."""
    if not autocast_is_on(total.device.type):
        total.addbmm_(left, right)
        return
    count = len(left) * left.shape[2]  # a mean is formed first, since the sum may be too large for half precision
    total += count * torch.addbmm(total, left, right, beta=0, alpha=1 / count)
