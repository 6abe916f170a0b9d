"""OFD's margins: how negative a teacher's channel is where it is negative."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

# On 20 batches of 16 images a map of 7 x 7 has 15,680 values a channel. If half of them are negative and normal, their
# mean has a standard error of 0.6 / sqrt(7840) = 0.7 % of their standard deviation.
BATCHES = 20


def relu_margin(norm: nn.Module) -> Tensor:
    """Expected value of the negative part of each channel of a batch norm's output.

    A channel is taken as normal with mean ``bias`` = m and standard deviation ``|weight|`` = s; then, with phi and
    Phi the normal density and distribution,

        m_c = E[X | X < 0] = m - s * phi(m / s) / Phi(-m / s),    or -3 s where Phi(-m / s) <= 0.001.

    A channel with s = 0 is a constant and gets margin 0.

    Args:
        norm: A batch norm with affine parameters (C,).

    Returns:
        (C,), at most 0, float32 or wider. Not differentiable.

    Source: Heo et al., A comprehensive overhaul of feature distillation (ICCV 2019), section 3.2, and their code
    for the tail; the value at s = 0 is this project's.
    """
    std, mean = norm.weight.detach().abs().double(), norm.bias.detach().double()
    ratio = mean / std.clamp_min(torch.finfo(torch.float64).tiny)
    below = torch.special.ndtr(-ratio)
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    margin = torch.where(below > 0.001, mean - std * density / below.clamp_min(0.001), -3 * std)
    return margin.where(std > 0, 0.0).to(torch.promote_types(norm.weight.dtype, torch.float32))


class MeasuredMargin(nn.Module):
    """Mean of the negative values of each channel, over the first training batches.

        m_c = sum of the negative values of channel c / their number,    or 0 where there is none

    In training mode each of the first 20 batches is added, those of all processes together. Later batches and
    evaluation mode leave the margin as it is. Before the first batch it is that of the batch at hand.

    The sums are buffers, so they are saved with the loss and a resumed run goes on with the same values.

    Args:
        channels: Number of channels.

    Source: this project. Heo et al. (ICCV 2019), section 3.2, define the margin as this mean and read it off a batch
    norm.
    """

    total: Tensor
    count: Tensor
    batches: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer('total', torch.zeros(channels))
        self.register_buffer('count', torch.zeros(channels, dtype=torch.long))
        self.register_buffer('batches', torch.zeros((), dtype=torch.long))
        self._seen: int | None = None  # ``batches`` without waiting for the device; None: not read yet

    @torch.no_grad()
    def forward(self, feat: Tensor) -> Tensor:
        """The margins (C,) after a batch of maps (B, C, H, W); values that are not finite do not count."""
        if self._seen is None:
            self._seen = int(self.batches)
        if not self.training or self._seen >= BATCHES:
            total, count = (self.total, self.count) if self._seen else _negative_part(feat)
            return total / count.clamp_min(1)
        total, count = _negative_part(feat)
        all_reduce(total)
        all_reduce(count)
        self.total += total
        self.count += count
        self.batches += 1
        self._seen += 1
        return self.total / self.count.clamp_min(1)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._seen = None


def _negative_part(feat: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the negative finite values of each channel, float32, and their number."""
    negative = (feat < 0) & feat.isfinite()
    return feat.float().where(negative, 0.0).sum((0, 2, 3)), negative.sum((0, 2, 3))


def is_affine_norm(module: nn.Module | None) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine


def norm_before(tap, modules: dict[str, nn.Module]) -> str:
    """The tapped module's own path; for a tapped input of an activation's last call, the last batch norm beside it.

    What an earlier call of the same activation gets comes from another norm, which is not known.
    """
    if tap.io == 'output' or tap.call != -1 or is_affine_norm(modules[tap.module]):
        return tap.module
    parent = tap.module.rpartition('.')[0]
    beside = [f'{parent}.{name}' for name, module in modules[parent].named_children() if is_affine_norm(module)]
    return beside[-1] if beside else tap.module
