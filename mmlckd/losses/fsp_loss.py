"""Distillation of the flow between layers (FSP)."""

from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlckd.registry import MODELS


@MODELS.register_module()
class FSPLoss(nn.Module):
    """Match the products of consecutive feature maps, entry by entry.

    n maps, shallow to deep, give n - 1 matrices G_k = F_k F_{k+1}^T / N: the transmitting matrices, of which the Lipschitz loss
    compares the norms alone.

        L = loss_weight * sum_k mean over the batch of |G_k^student - G_k^teacher|_F^2

    Args:
        loss_weight: Factor of the loss, non-negative.

    Source: Yim et al., A gift from knowledge distillation (CVPR 2017), equations 1 and 2, with all pairs weighed alike. They train by it
    first and for the task afterwards; here it is a term beside the task's loss.
    """

    def __init__(self, loss_weight: float = 1.0):
        super().__init__()
        if loss_weight < 0:
            raise ValueError(f'loss_weight is {loss_weight}: it must not be negative')
        self.loss_weight = loss_weight

    def forward(self, student_feats: Sequence[Tensor], teacher_feats: Sequence[Tensor]) -> Tensor:
        """Loss of one batch.

        Args:
            student_feats: n >= 2 maps (B, C, H, W), shallow to deep. Differentiable.
            teacher_feats: As many, of the same channels (`connectors=True` sees to it); their sizes may differ. Detached here.

        Returns:
            Scalar, attached to every student map.

        Raises:
            ValueError: Unequal numbers of maps, fewer than two, or unequal channels.
        """
        if len(student_feats) != len(teacher_feats) or len(student_feats) < 2:
            raise ValueError(f'{len(student_feats)} student maps and {len(teacher_feats)} teacher maps: FSP compares consecutive maps and '
                             'needs as many on both sides, at least two')
        for student, teacher in zip(student_feats, teacher_feats):
            if student.shape[1] != teacher.shape[1]:
                raise ValueError(f'a student map of {student.shape[1]} channels against a teacher map of {teacher.shape[1]}: FSP needs '
                                 'equal ones, set connectors=True')
        sides = zip(_flows(student_feats), _flows([feat.detach() for feat in teacher_feats]))
        return self.loss_weight * sum((student - teacher).square().sum((1, 2)).mean() for student, teacher in sides)


def _flows(feats: Sequence[Tensor]) -> Sequence[Tensor]:
    """G_k (B, C_k, C_k+1) of each two consecutive maps, the larger pooled to the smaller."""
    flows = []
    for before, after in zip(feats, feats[1:]):
        size = tuple(map(min, before.shape[2:], after.shape[2:]))
        before, after = (feat if feat.shape[2:] == size else F.adaptive_avg_pool2d(feat, size) for feat in (before, after))
        flows.append(torch.bmm(before.flatten(2), after.flatten(2).mT) / size[0] / size[1])
    return flows
