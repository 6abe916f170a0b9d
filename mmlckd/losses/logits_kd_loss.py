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

    A sample with logits that are not finite on either side is left out, with no gradient; ``left_out`` counts them, on the device, until
    its reader sets it back to 0.

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
        self.left_out: Union[int, Tensor] = 0

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
        student = student.to(torch.promote_types(student.dtype, torch.float32))
        teacher = teacher.detach().to(student.dtype)
        valid = (student.detach().isfinite() & teacher.isfinite()).flatten(1).all(1)
        self.left_out = self.left_out + (~valid).sum()
        # Both sides are replaced before they are compared: a masked NaN would come back through the derivative.
        mask = valid.view(-1, *[1] * (student.dim() - 1))
        student, teacher = (F.log_softmax(logits.where(mask, 0.) / self.tau, dim=1) for logits in (student, teacher))
        divergence = F.kl_div(student, teacher, reduction='sum', log_target=True)
        return self.tau**2 * divergence / (valid.sum() * student.shape[2:].numel()).clamp_min(1)
