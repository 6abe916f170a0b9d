"""Attention transfer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmlckd.registry import MODELS

from .mapwise_loss import MapwiseLoss
from .positions import pooled_alike

_ZERO = 1e-6  # a map without a larger value has no picture


@MODELS.register_module()
class AttentionTransferLoss(MapwiseLoss):
    """Match where the maps are strong: their energy over channels, as a picture of length one.

        A(F) = sum_c F_c^2, flattened and divided by its Euclidean length
        L = loss_weight * sum over maps of the mean over samples and positions of (A(F^student) - A(F^teacher))^2

    Maps (B, C, H, W) or tokens (B, N, C). Channels may differ between the sides. Where sizes do, the larger energy is
    average-pooled to the smaller; tokens need equal N. Differentiable in the student's maps.

    Args:
        loss_weight: Factor of the loss, not negative. It is the paper's beta / 2, with beta = 1000; their code
            multiplies the mean by beta itself.

    Source: Zagoruyko and Komodakis, Paying more attention to attention (ICLR 2017), equation 2 with p = 2. The mean of
    squares is their code's; the paper has the Euclidean distance.
    """

    alike = 'batch'

    def __init__(self, loss_weight: float = 500.0):
        super().__init__(loss_weight)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B,): mean over positions of the squared difference of the two pictures."""
        student, teacher = (F.normalize(side.flatten(1)) for side in pooled_alike(_energy(student), _energy(teacher)))
        return (student - teacher).square().mean(1)


def _energy(feat: Tensor) -> Tensor:
    """Energy of a map (B, 1, H, W) or of tokens (B, N, 1).

    Each sample is divided by its largest value first, so that no square overflows. The picture does not depend on that
    factor, so the factor may count as a constant in the gradient.
    """
    largest = feat.detach().abs().flatten(1).amax(1).clamp_min(_ZERO)
    feat = feat / largest.view(-1, *[1] * (feat.dim() - 1))
    return feat.square().sum(2 if feat.dim() == 3 else 1, keepdim=True)
