"""1 x 1 convolution and batch norm folded into one affine map, by the moments of the convolution's input."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .affine_map import AffineMap, centred_part, parts
from .pooling import like_map, positions

_POSITIONS = 4  # for each channel, from which on a covariance costs less than what it replaces


def pays(feat: Tensor, norm: nn.Module) -> bool:
    """Whether :func:`folded` knows such a norm, and costs less than the convolution's output and the norm's.

    A covariance of C_in x C_in takes their place, so the batch must hold four positions for each channel of ``feat``.
    A norm that is synchronised is always folded: the processes must exchange the same things, and the batch of each
    may have another size.
    """
    known = isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm)) and norm.affine and norm.track_running_stats
    channels = feat.shape[2 if feat.dim() == 3 else 1]
    return known and (_group_of(norm) is not None or feat.numel() >= _POSITIONS * channels**2)


def folded(feat: Tensor, weight: Tensor, norm: Any) -> AffineMap:
    """Batch norm of a 1 x 1 convolution without bias, as an affine map of the convolution's input.

    With W the weight, m and S the mean and the covariance of x over batch and positions, the convolution's output has
    the mean W m and the variances diag(W S W^T). So neither it nor the norm's output need be formed:

        norm(W x) = A (x - m) + beta,        A = diag(gamma / sqrt(diag(W S W^T) + eps)) W.

    In training mode the running statistics move as in the norm's own forward, and synchronised norms take m and S over
    all processes. In evaluation mode the running statistics take the place of W m and diag(W S W^T).

    Args:
        feat: x, a map (B, C_in, H, W) or tokens (B, N, C_in). Differentiable once; the gradient, through m and S too,
            is that of the two modules.
        weight: W, (C_out, C_in). Differentiable.
        norm: A BatchNorm2d or SyncBatchNorm, affine, with running statistics.

    Raises:
        ValueError: The norm is in training mode, and there is one position in all.

    Source: this project.
    """
    with torch.autocast(feat.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(feat.dtype, weight.dtype), torch.float32)
        weight, gamma, beta = (value.to(dtype) for value in (weight, norm.weight, norm.bias))
        if not norm.training:
            scale = gamma / (norm.running_var + norm.eps).sqrt()
            mean = weight.new_zeros(weight.shape[1])
            return AffineMap(feat, scale.unsqueeze(1) * weight, mean, beta - scale * norm.running_mean)
        group = _group_of(norm)
        mean, covariance, count = _Moments.apply(feat, dtype, group)
        if group is None and feat.numel() <= weight.shape[1]:
            raise ValueError(f'the map is {tuple(feat.shape)}, one position in all: a batch norm in training needs two')
        variance = _Variances.apply(weight, covariance).clamp_min(0.0)
        _move_statistics(norm, weight @ mean, variance, count)
        return AffineMap(feat, (gamma / (variance + norm.eps).sqrt()).unsqueeze(1) * weight, mean, beta)


def _group_of(norm: nn.Module) -> Any:
    """The processes that a norm takes its statistics over; None for this process alone."""
    if not isinstance(norm, nn.SyncBatchNorm) or not dist.is_available() or not dist.is_initialized():
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


@torch.no_grad()
def _move_statistics(norm: Any, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    norm.num_batches_tracked.add_(1)
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), momentum)


class _Variances(Function):
    """diag(W S W^T) of a symmetric S. The product W S serves the derivative in W, too."""

    @staticmethod
    def forward(ctx, weight: Tensor, covariance: Tensor) -> Tensor:
        product = weight @ covariance
        ctx.save_for_backward(weight, product)
        return (product * weight).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        weight, product = ctx.saved_tensors
        scaled = grad.unsqueeze(1)
        return 2 * scaled * product, weight.mT @ (scaled * weight)


class _Moments(Function):
    """Mean (C,) and covariance (C, C) of a map over batch and positions, and how many positions these are.

    The map is centred before the product. No centred copy is kept, or formed whole.
    """

    @staticmethod
    def forward(ctx, feat: Tensor, dtype: torch.dtype, group: Any) -> tuple[Tensor, Tensor, Tensor]:
        seen = positions(feat)
        count = torch.full((1,), float(len(seen) * seen.shape[2]), dtype=dtype, device=feat.device)
        total = _summed(torch.cat([seen.sum((0, 2), dtype=dtype), count]), group)
        mean, count = total[:-1] / total[-1], total[-1]
        covariance = mean.new_zeros(len(mean), len(mean))
        for rows, all_cells in parts(seen.shape, seen.shape[1], feat.device):
            for cells in all_cells:
                centred = centred_part(seen, mean, rows, cells)
                covariance.addbmm_(centred, centred.mT)
        covariance = _summed(covariance, group) / count
        ctx.save_for_backward(feat, mean, count)
        ctx.group = group
        ctx.mark_non_differentiable(count)
        return mean, covariance, count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_mean: Tensor, grad_covariance: Tensor, _) -> tuple[Tensor, None, None]:
        feat, mean, count = ctx.saved_tensors
        grad_mean, grad_covariance = _summed(grad_mean, ctx.group), _summed(grad_covariance, ctx.group)
        slope, offset = (grad_covariance + grad_covariance.mT) / count, grad_mean.unsqueeze(1) / count
        seen = positions(feat)
        target = torch.empty_like(seen, dtype=feat.dtype)
        for rows, all_cells in parts(seen.shape, seen.shape[1], feat.device):
            for cells in all_cells:
                centred = centred_part(seen, mean, rows, cells)
                target[rows, :, cells] = torch.baddbmm(offset, slope.expand(len(centred), -1, -1), centred)
        return like_map(target, feat), None, None


def _summed(value: Tensor, group: Any) -> Tensor:
    """The sum over the processes of a group."""
    if group is None:
        return value
    value = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(value, group=group)
    return value
