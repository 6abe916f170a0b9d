"""Attention transfer."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from mmlckd.registry import MODELS

from .distillation_loss import MapwiseLoss


@MODELS.register_module()
class AttentionTransferLoss(MapwiseLoss):
    """Match where the maps are strong: their energy over channels, as a picture of length one.

        A(F) = sum_c F_c^2, flattened and divided by its Euclidean length
        L = loss_weight * sum over maps of the mean over samples and positions of (A(F^student) - A(F^teacher))^2

    Args:
        loss_weight: Factor of the loss, non-negative. The authors' beta / 2, of 1000 on CIFAR.

    Source: Zagoruyko and Komodakis, Paying more attention to attention (ICLR 2017), equation 2 with p = 2, in the form of their code: the
    mean of squares, where the paper has the Euclidean distance.
    """

    equal_shapes = False

    def __init__(self, loss_weight: float = 500.0):
        super().__init__(loss_weight)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B,): mean over positions of the squared difference of the two pictures, at the smaller size of the two."""
        size = tuple(map(min, student.shape[2:], teacher.shape[2:]))
        return (_attention(student, size) - _attention(teacher, size)).square().mean(1)


def _attention(feat: Tensor, size: Sequence[int]) -> Tensor:
    """(B, N): the energy at each of the positions, the map pooled to that size, of length one."""
    energy = feat.square().sum(1, keepdim=True)
    return F.normalize(F.adaptive_avg_pool2d(energy, size).flatten(1))
