"""Logits distillation."""

from typing import Sequence, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlckd.registry import MODELS


@MODELS.register_module()
class LogitsKDLoss(nn.Module):
    """Kullback-Leibler divergence of the softened class distributions, teacher to student.

        L = loss_weight * tau^2 * mean over samples and positions of KL(softmax(teacher / tau) || softmax(student / tau))

    Args:
        tau: Temperature, positive.
        loss_weight: Factor of the loss, non-negative.

    Source: Hinton et al., Distilling the knowledge in a neural network (2015), section 2.
    """

    def __init__(self, tau: float = 4.0, loss_weight: float = 1.0):
        super().__init__()
        if tau <= 0:
            raise ValueError(f'tau is {tau}: a temperature must be positive')
        if loss_weight < 0:
            raise ValueError(f'loss_weight is {loss_weight}: it must not be negative')
        self.tau = tau
        self.loss_weight = loss_weight

    def forward(self, student_logits: Union[Tensor, Sequence[Tensor]], teacher_logits: Union[Tensor, Sequence[Tensor]]) -> Tensor:
        """Loss of one batch.

        Args:
            student_logits: (B, K) or (B, K, ...), or a sequence of such (their losses are summed). Differentiable.
            teacher_logits: The same shapes; detached here.

        Returns:
            Scalar, float32 or wider.

        Raises:
            ValueError: The two sides differ in number or shape.
        """
        if isinstance(student_logits, Tensor):
            student_logits, teacher_logits = [student_logits], [teacher_logits]
        if len(student_logits) != len(teacher_logits):
            raise ValueError(f'{len(student_logits)} student logits against {len(teacher_logits)} of the teacher: '
                             'tap as many on both sides')
        return self.loss_weight * sum(self._divergence(student, teacher) for student, teacher in zip(student_logits, teacher_logits))

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        if student.shape != teacher.shape:
            raise ValueError(f'student logits {tuple(student.shape)} against teacher logits {tuple(teacher.shape)}: '
                             'both heads need the same classes and output size')
        student = F.log_softmax(student.to(torch.promote_types(student.dtype, torch.float32)) / self.tau, dim=1)
        teacher = F.log_softmax(teacher.detach().to(student.dtype) / self.tau, dim=1)
        divergence = F.kl_div(student, teacher, reduction='sum', log_target=True)
        return self.tau**2 * divergence / (student.numel() / student.shape[1])
