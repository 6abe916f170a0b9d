"""OFD: the overhaul of feature distillation, the base that the authors add the Lipschitz loss to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmlckd.registry import MODELS

from .checks import check_counts, check_pair, check_weights, pick_weights
from .distillation_loss import DistillationLoss


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


class PartialSquaredDistance(torch.autograd.Function):
    """Sum over the entries of each sample with S > T' or T' > 0 of (S - T')^2: (B,).

    The differences, which the backward pass needs, overwrite ``target``. They are found by minima and maxima alone,
    since selecting by a mask takes twenty times as long on a CPU. The second result, (B,), is False for a sample that
    is not finite; its distance is 0, with no gradient.
    """

    @staticmethod
    def forward(ctx, student: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        for ours, theirs in zip(student.chunk(4), target.chunk(4)):  # in parts, to need little memory
            difference = ours - theirs
            # Below a target that is not positive nothing is asked. The floor of the difference is 0 there, and minus
            # infinity elsewhere.
            floor = theirs.clamp_min_(0.0).mul_(-torch.finfo(theirs.dtype).max)
            torch.maximum(difference, floor, out=theirs)
        # By channel first: one sum over all would lose digits.
        squares = torch.linalg.vector_norm(target, dim=(2, 3)).square().sum(1)
        finite = squares.isfinite()
        ctx.save_for_backward(target.nan_to_num_(0.0, 0.0, 0.0), finite)
        ctx.dtype = student.dtype
        ctx.mark_non_differentiable(finite)
        return squares.where(finite, 0.0), finite

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor, _) -> tuple[Tensor, None]:
        difference, finite = ctx.saved_tensors
        return (difference * (2 * gradient * finite).view(-1, 1, 1, 1)).to(ctx.dtype), None


def _is_affine_norm(module: nn.Module | None) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine


def _norm_before(tap, modules: dict[str, nn.Module]) -> str:
    """The tapped module's own path; for a tapped input of an activation, that of the last batch norm beside it."""
    if tap.io == 'output' or _is_affine_norm(modules[tap.module]):
        return tap.module
    parent = tap.module.rpartition('.')[0]
    beside = [f'{parent}.{name}' for name, module in modules[parent].named_children() if _is_affine_norm(module)]
    return beside[-1] if beside else tap.module


@MODELS.register_module()
class OFDLoss(DistillationLoss):
    """Partial squared distance to the margin-rectified teacher maps.

    With T' = max(T, m_c), m_c the margin of channel c, and n maps,

        L = loss_weight / B * sum_i w_i * sum over entries with S > T' or T' > 0 of (S - T')^2.

    A sample with a map that is not finite on either side, or whose squares overflow, is left out for that map, with no
    gradient; the batch size B still counts it.

    Args:
        loss_weight: Factor of the loss, not negative.
        map_weights: 'geometric' (2^-(n-1-i), i = 0 .. n-1: the deepest map weighs 1, the one before 1/2), or a list of
            n numbers, none of them negative.
        margins_from: Paths of the teacher's batch norms, one a tap. None: the tapped modules themselves; or, where an
            activation's input is tapped, the last batch norm beside it. For the ReLU that ends a residual block this is
            the norm of the last convolution.

    Source: Heo et al. (ICCV 2019), equations of sections 3.2 and 3.3; weights of their code.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        map_weights: str | Sequence[float] = 'geometric',
        margins_from: Sequence[str] | None = None,
    ):
        super().__init__(loss_weight)
        check_weights('map_weights', map_weights, ('geometric',))
        self.map_weights = map_weights
        self.margins_from = margins_from
        self.margins: Sequence[Tensor] | None = None  # (C,) a map; None: those of the attached teacher
        self._norms: tuple[nn.Module, ...] = ()

    def attach(self, teacher: nn.Module, taps: Sequence) -> None:
        """Find the batch norms whose affine parameters give the margins; the distiller calls this once.

        Raises:
            ValueError: A path that does not name an affine batch norm, or not one path a tap.
        """
        modules = dict(teacher.named_modules())
        paths = [_norm_before(tap, modules) for tap in taps] if self.margins_from is None else self.margins_from
        if len(paths) != len(taps):
            raise ValueError(f'margins_from names {len(paths)} batch norms for {len(taps)} taps: give one a tap')
        for path in paths:
            if not _is_affine_norm(modules.get(path)):
                raise ValueError(
                    f'{path!r} is no affine batch norm of the teacher: name the batch norm before each tapped '
                    'ReLU in OFDLoss(margins_from=[...])'
                )
        # In a tuple, or the teacher's modules would become part of this one. The margins are computed later, since the
        # teacher may not be loaded yet.
        self._norms, self.margins = tuple(modules[path] for path in paths), None

    def check_channels(self, teacher_channels: Sequence[int]) -> None:
        for i, (norm, channels) in enumerate(zip(self._norms, teacher_channels)):
            if norm.num_features != channels:
                raise ValueError(
                    f"margins_from has a batch norm of {norm.num_features} channels for the teacher's map {i}, which "
                    f'has {channels}: name the batch norm before each tapped ReLU'
                )

    @torch.no_grad()
    def targets(self, teacher_feats: Sequence[Tensor], data_samples: Sequence | None = None) -> list[Tensor]:
        """T' of every map, in memory of its own.

        Raises:
            ValueError: There are neither ``margins`` nor an attached teacher, or not one margin a map.
        """
        if self.margins is None:
            if not self._norms:
                raise ValueError(
                    'margins is None and no teacher is attached: set margins, or call attach(teacher, taps)'
                )
            self.margins = [relu_margin(norm) for norm in self._norms]  # the teacher is frozen: once is enough
        if len(teacher_feats) != len(self.margins):
            raise ValueError(f'{len(teacher_feats)} teacher maps and {len(self.margins)} margins: give one a map')
        return [
            torch.maximum(feat, margin.to(feat.device, torch.promote_types(feat.dtype, torch.float32)).view(-1, 1, 1))
            for feat, margin in zip(teacher_feats, self.margins)
        ]

    def compare(self, student_feats: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Loss of student maps (B, C, H, W), at the teacher's channels, against :meth:`targets`, which are used up.

        Raises:
            ValueError: Shapes differ, or the weights do not fit.
        """
        check_counts(student_feats, targets)
        total: Any = 0.0
        for i, (student, target, weight) in enumerate(zip(student_feats, targets, self.weights_for(len(targets)))):
            check_pair(student, target, i)
            target = target.to(torch.promote_types(student.dtype, target.dtype))
            distance, finite = PartialSquaredDistance.apply(student, target)
            self.left_out = self.left_out + (~finite).sum()
            total = total + weight * distance.sum()
        return self.loss_weight * total / max(len(student_feats[0]), 1)

    def weights_for(self, num_maps: int) -> list[float]:
        """The weight of each map, shallow to deep."""
        named = dict(geometric=[2.0 ** (i + 1 - num_maps) for i in range(num_maps)])
        return pick_weights('map_weights', self.map_weights, num_maps, 'map', named)
