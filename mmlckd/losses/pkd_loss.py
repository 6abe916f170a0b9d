"""Distillation by Pearson correlation of features (PKD)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlckd.registry import MODELS

from .mapwise_loss import MapwiseLoss
from .positions import positions


@MODELS.register_module()
class PKDLoss(MapwiseLoss):
    """Match maps up to the scale and offset of each channel.

    Each channel is brought to mean 0 and standard deviation 1 over its m entries, batch and positions together, on each
    side by itself: S and T. Then

        L = loss_weight * sum over maps of the mean over entries of (S - T)^2 / 2

    In terms of the channels' correlations r_c this is (m - 1) / m times the mean over channels of 1 - r_c.

    Maps (B, C, H, W) or tokens (B, N, C), with equal channels on both sides. A student map of another size is brought
    to the teacher's by bilinear interpolation; tokens need equal N. Differentiable in the student's maps. Samples that
    are not finite count neither in the statistics nor in the mean. A constant channel counts as 0.

    Args:
        loss_weight: Factor of the loss, not negative. mmrazor's recipes use 6 on each level of an FPN.

    Source: Cao et al., PKD (NeurIPS 2022), and their code, mmrazor's. From the code come the sample standard
    deviation (m - 1) and the interpolation of the student, up or down. The code adds 1e-6 to the standard deviation;
    here a channel with less than 8 machine epsilons of its largest value counts as constant instead, so the loss does
    not depend on the scale of the maps.
    """

    alike = 'channels'

    def pair_loss(self, student: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
        if student.dim() == 4 and student.shape[2:] != teacher.shape[2:]:
            student = F.interpolate(student, teacher.shape[2:], mode='bilinear')
        student, teacher = positions(student), positions(teacher)
        if student.shape != teacher.shape:
            raise ValueError(
                f'student tokens have {student.shape[2]} positions and teacher tokens {teacher.shape[2]}: '
                'name their `grid` on the tap'
            )
        squares = (_standardised(student, kept) - _standardised(teacher, kept)).square()
        return squares.mean((1, 2)).sum() / (2 * kept.sum().clamp_min(1))


def _standardised(feat: Tensor, kept: Tensor) -> Tensor:
    """(B, C, N) with mean 0 and standard deviation 1 per channel over the ``kept`` samples, (B,); 0 in all others."""
    eps = 8 * torch.finfo(feat.dtype).eps
    count = kept.sum() * feat.shape[2]
    # The result does not depend on a channel's scale, which may count as a constant then; squares do not overflow.
    largest = feat.detach().abs().amax((0, 2), keepdim=True).clamp_min(torch.finfo(feat.dtype).tiny)
    feat = feat / largest
    mean = feat.sum((0, 2), keepdim=True) / count.clamp_min(1)
    centred = (feat - mean) * kept.view(-1, 1, 1)
    variance = centred.square().sum((0, 2), keepdim=True) / (count - 1).clamp_min(1)
    varies = variance > eps**2
    return (centred / variance.where(varies, 1.0).sqrt()).where(varies, 0.0)
