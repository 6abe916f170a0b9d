"""Attention transfer."""

from typing import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmlckd.registry import MODELS


@MODELS.register_module()
class AttentionTransferLoss(nn.Module):
    """Match where the maps are strong: their energy over channels, as a picture of length one.

        A(F) = sum_c F_c^2, flattened and divided by its Euclidean length
        L = loss_weight * sum over maps of the mean over samples and positions of (A(F^student) - A(F^teacher))^2

    Args:
        loss_weight: Factor of the loss, non-negative. The authors' beta / 2, of 1000 on CIFAR.

    Source: Zagoruyko and Komodakis, Paying more attention to attention (ICLR 2017), equation 2 with p = 2, in the form of their code: the
    mean of squares, where the paper has the Euclidean distance.
    """

    def __init__(self, loss_weight: float = 500.):
        super().__init__()
        if loss_weight < 0:
            raise ValueError(f'loss_weight is {loss_weight}: it must not be negative')
        self.loss_weight = loss_weight

    def forward(self, student_feats: Sequence[Tensor], teacher_feats: Sequence[Tensor]) -> Tensor:
        """Loss of one batch.

        Args:
            student_feats: Maps (B, C, H, W). Differentiable.
            teacher_feats: As many; channels and sizes may differ from the student's. Detached here.

        Returns:
            Scalar, attached to every student map.

        Raises:
            ValueError: Unequal numbers of maps.
        """
        if len(student_feats) != len(teacher_feats):
            raise ValueError(f'{len(student_feats)} student maps and {len(teacher_feats)} teacher maps: tap as many modules on both sides')
        total = 0.
        for student, teacher in zip(student_feats, teacher_feats):
            size = tuple(map(min, student.shape[2:], teacher.shape[2:]))
            total = total + F.mse_loss(_attention(student, size), _attention(teacher.detach(), size))
        return self.loss_weight * total


def _attention(feat: Tensor, size: Sequence[int]) -> Tensor:
    """(B, N): the energy at each of the positions, the map pooled to that size, of length one."""
    energy = feat.square().sum(1, keepdim=True)
    return F.normalize(F.adaptive_avg_pool2d(energy, size).flatten(1))
