"""Logits distillation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmlckd.registry import MODELS

from .checks import check_temperature
from .divergence import sigmoid_divergence, softmax_divergence
from .logits import LogitsReader
from .mapwise_loss import MapwiseLoss, as_sequence


@MODELS.register_module()
class LogitsKDLoss(MapwiseLoss):
    """Kullback-Leibler divergence of the softened class distributions, teacher to student.

    For heads with a softmax, one distribution over K classes:

        L = loss_weight * tau^2 * mean over samples and positions of
            KL(softmax(teacher / tau) || softmax(student / tau))

    For heads with a sigmoid, a yes or no for each class; KL_k is that of class k:

        L = loss_weight * tau^2 * mean over samples and positions of the sum over k of
            KL_k(sigmoid(teacher / tau) || sigmoid(student / tau))

    Logits (B, K), tokens or queries (B, N, K), or maps (B, K, H, W), of equal shape on both sides. Tokens count as
    positions, and so do the anchors of a position. Differentiable in the student's logits.

    Args:
        tau: Temperature, positive.
        loss_weight: Factor of the loss, not negative.
        activation: 'softmax', 'sigmoid', or 'auto': that of the teacher's head, as its own loss tells.
        num_classes: Channels of one class distribution, where the channels are anchors x classes. None: found from the
            teacher's head. See :class:`mmlckd.losses.logits.LogitsReader` for both.

    Raises:
        ValueError: An option is wrong. When the model is built: a head does not tell its activation. While training:
            the channels are not explained by the head's classes and anchors, or by ``num_classes``.

    Source: Hinton et al., Distilling the knowledge in a neural network (2015), section 2. The form for sigmoids is the
    same divergence for each class; its sum over classes is this project's choice.
    """

    def __init__(
        self, tau: float = 4.0, loss_weight: float = 1.0, activation: str = 'auto', num_classes: int | None = None
    ):
        super().__init__(loss_weight)
        check_temperature(tau)
        self.tau = tau
        self.reader = LogitsReader(activation, num_classes)

    def attach(self, teacher: nn.Module, taps: Sequence) -> None:
        self.reader.attach(teacher, taps)

    def targets(self, teacher_feats: Tensor | Sequence[Tensor], data_samples: Sequence | None = None) -> list[Tensor]:
        self.reader.check(as_sequence(teacher_feats))
        return super().targets(teacher_feats)

    def compare(self, student_feats: Tensor | Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        return self.compare_maps(student_feats, targets, [(index,) for index in range(len(targets))])

    def distance(self, student: Tensor, teacher: Tensor, index: int) -> Tensor:
        """(B,): tau^2 times the mean over positions and anchors of the divergence."""
        student, teacher = (self.reader.distributions(logits / self.tau, index) for logits in (student, teacher))
        if self.reader.activation_at(index) == 'softmax':
            divergence = softmax_divergence(student, teacher, dim=1)
        else:
            divergence = sigmoid_divergence(student, teacher).sum(1, keepdim=True)
        return self.tau**2 * divergence.flatten(1).mean(1)

    def extra_repr(self) -> str:
        options = f'activation={self.reader.activation!r}, num_classes={self.reader.num_classes}'
        return f'{super().extra_repr()}, tau={self.tau}, {options}'
