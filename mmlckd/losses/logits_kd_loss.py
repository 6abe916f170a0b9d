"""Logits distillation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmlckd.registry import MODELS

from .distillation_loss import MapwiseLoss


@MODELS.register_module()
class LogitsKDLoss(MapwiseLoss):
    """Kullback-Leibler divergence of the softened class distributions, teacher to student.

        L = loss_weight * tau^2 * mean over samples and positions of KL(softmax(teacher / tau) || softmax(student / tau))

    A sample with logits that are not finite on either side is left out, with no gradient; ``left_out`` counts them, on the device, until
    its reader sets it back to 0.

    Args:
        tau: Temperature, positive.
        loss_weight: Factor of the loss, non-negative.

    Source: Hinton et al., Distilling the knowledge in a neural network (2015), section 2.
    """

    def __init__(self, tau: float = 4.0, loss_weight: float = 1.0):
        super().__init__(loss_weight)
        if tau <= 0:
            raise ValueError(f'tau is {tau}: a temperature must be positive')
        self.tau = tau

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B,): tau^2 times the mean over positions of the divergence."""
        student, teacher = (F.log_softmax(logits / self.tau, dim=1) for logits in (student, teacher))
        divergence = F.kl_div(student, teacher, reduction='none', log_target=True)
        return self.tau**2 * divergence.sum(1, keepdim=True).flatten(1).mean(1)
