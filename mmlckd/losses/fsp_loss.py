"""Distillation of the flow between layers (FSP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmlckd.registry import MODELS

from .checks import check_consecutive, check_one_batch, check_pair
from .mapwise_loss import MapwiseLoss, as_sequence, finite_samples, full_precision, stop_gradient
from .positions import pooled_alike


@MODELS.register_module()
class FSPLoss(MapwiseLoss):
    """Match the products of consecutive feature maps, entry by entry.

    n maps, shallow to deep, give n - 1 matrices G_k = F_k F_{k+1}^T / N over N positions. These are the transmitting
    matrices; the Lipschitz loss compares their norms alone.

        L = loss_weight * sum_k mean over the batch of |G_k^student - G_k^teacher|_F^2

    Maps (B, C, H, W) or tokens (B, N, C), with equal channels on both sides. Within a pair the larger map is
    average-pooled to the smaller; tokens need equal N. Differentiable in the student's maps.

    Args:
        loss_weight: Factor of the loss, not negative.

    Source: Yim et al., A gift from knowledge distillation (CVPR 2017), equations 1 and 2, all pairs with equal weight.
    They train by it first and for the task afterwards; here it is a term beside the task's loss.
    """

    def targets(self, teacher_feats: Tensor | Sequence[Tensor], data_samples: Sequence | None = None) -> list[Tensor]:
        """G_k of the teacher, (B, C_k, C_k+1) each. Its maps may differ from the student's in size, not in channels."""
        teacher_feats = as_sequence(teacher_feats)
        check_one_batch(teacher_feats, 'teacher')
        feats = [feat.to(torch.promote_types(feat.dtype, torch.float32)) for feat in super().targets(teacher_feats)]
        return [_flow(*pair) for pair in zip(feats, feats[1:])]

    def compare(self, student_feats: Tensor | Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        student_feats = as_sequence(student_feats)
        check_consecutive(student_feats, targets, 'FSP')
        check_one_batch(student_feats, 'student')
        total: Any = 0.0
        for i, (before, after, target) in enumerate(zip(student_feats, student_feats[1:], targets)):
            before, after, kept = finite_samples(before, after)
            flow = _flow(before, after)
            check_pair(flow, target, i)
            flow, target, finite = finite_samples(flow, target)
            for feat in (before, after):  # the products of finite maps may overflow
                stop_gradient(feat, finite)
            self.left_out = self.left_out + (~(kept & finite)).sum()
            total = total + self.pair_loss(flow, target, kept & finite)
        return self.loss_weight * total

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B,): squared Frobenius distance of two products."""
        return (student - teacher).square().sum((1, 2))


def _flow(before: Tensor, after: Tensor) -> Tensor:
    """G (B, C, C') of two maps of C and C' channels, at the precision of the maps."""
    before, after = pooled_alike(before, after)
    with full_precision(before):
        return torch.bmm(before, after.mT) / before.shape[2]
