"""Channel-wise distillation (CWD)."""

from __future__ import annotations

from torch import Tensor

from mmlckd.registry import MODELS

from .checks import check_temperature
from .divergence import softmax_divergence
from .mapwise_loss import MapwiseLoss
from .positions import positions


@MODELS.register_module()
class CWDLoss(MapwiseLoss):
    """Match where each channel is active: its softmax over positions, teacher to student.

    With F_c the N positions of channel c of a sample, and C channels,

        L = loss_weight * tau^2 * sum over maps of the mean over samples of
            1 / C * sum_c KL(softmax(F_c^teacher / tau) || softmax(F_c^student / tau))

    Maps (B, C, H, W) or tokens (B, N, C), of equal shape on both sides: logits, or features. Differentiable in the
    student's maps. A map of one position gives 0.

    Args:
        tau: Temperature, positive.
        loss_weight: Factor of the loss, not negative.

    Source: Shu et al., Channel-wise knowledge distillation for dense prediction (ICCV 2021), where tau is T. mmrazor's
    code divides the sum over the batch by B C, which is the same; its default temperature is 1.
    """

    def __init__(self, tau: float = 4.0, loss_weight: float = 1.0):
        super().__init__(loss_weight)
        check_temperature(tau)
        self.tau = tau

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B,): tau^2 times the mean over channels of the divergence."""
        student, teacher = positions(student), positions(teacher)
        divergence = softmax_divergence(student / self.tau, teacher / self.tau, dim=2)
        return self.tau**2 * divergence.flatten(1).mean(1)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, tau={self.tau}'
