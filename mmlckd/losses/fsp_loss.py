"""Distillation of the flow between layers (FSP)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlckd.registry import MODELS

from .distillation_loss import MapwiseLoss, check_counts, check_pair, finite_samples


@MODELS.register_module()
class FSPLoss(MapwiseLoss):
    """Match the products of consecutive feature maps, entry by entry.

    n maps, shallow to deep, give n - 1 matrices G_k = F_k F_{k+1}^T / N: the transmitting matrices, of which the Lipschitz loss
    compares the norms alone.

        L = loss_weight * sum_k mean over the batch of |G_k^student - G_k^teacher|_F^2

    Args:
        loss_weight: Factor of the loss, non-negative.

    Source: Yim et al., A gift from knowledge distillation (CVPR 2017), equations 1 and 2, with all pairs weighed alike. They train by it
    first and for the task afterwards; here it is a term beside the task's loss.
    """

    def targets(self, teacher_feats: Sequence[Tensor], data_samples: Sequence | None = None) -> list[Tensor]:
        """G_k of the teacher, (B, C_k, C_k+1) each; its maps may differ from the student's in size, not in channels."""
        feats = [feat.to(torch.promote_types(feat.dtype, torch.float32)) for feat in super().targets(teacher_feats)]
        return [_flow(*pair) for pair in zip(feats, feats[1:])]

    def compare(self, student_feats: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        check_counts(student_feats, [None, *targets])
        if len(student_feats) < 2:
            raise ValueError(
                f'{len(student_feats)} map is tapped: FSP compares consecutive maps and needs at least two'
            )
        total = 0.0
        for i, (before, after, target) in enumerate(zip(student_feats, student_feats[1:], targets)):
            before, after, kept = finite_samples(before, after)
            flow = _flow(before, after)
            check_pair(flow, target, i)
            flow, target, finite = finite_samples(flow, target)
            self.left_out = self.left_out + (~(kept & finite)).sum()
            total = total + self.pair_loss(flow, target, kept & finite)
        return self.loss_weight * total

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B,): squared Frobenius distance of two products."""
        return (student - teacher).square().sum((1, 2))


def _flow(before: Tensor, after: Tensor) -> Tensor:
    """G (B, C, C') of two maps (B, C, H, W) and (B, C', H', W'), the larger pooled to the smaller."""
    size = tuple(map(min, before.shape[2:], after.shape[2:]))
    before, after = (feat if feat.shape[2:] == size else F.adaptive_avg_pool2d(feat, size) for feat in (before, after))
    return torch.bmm(before.flatten(2), after.flatten(2).mT) / (size[0] * size[1])
