"""Decoupled distillation of logits (DKD)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmlckd.registry import MODELS

from .checks import check_batch, check_temperature, check_weight
from .divergence import sigmoid_divergence, softmax_divergence
from .labels import labels_of
from .logits import LogitsReader
from .mapwise_loss import MapwiseLoss, as_sequence


@MODELS.register_module()
class DKDLoss(MapwiseLoss):
    """Distil how sure the teacher is of the labelled class, and how it ranks the others, each with a weight of its own.

    With b the probabilities (labelled class, all others), and p the distribution over the other classes alone, both of
    logits / tau,

        L = loss_weight * tau^2 * mean over samples of
            (alpha * KL(b^teacher || b^student) + beta * KL(p^teacher || p^student))

    Logits (B, K), K at least 2. Differentiable in the student's logits. Labels come from the batch: ``gt_label`` of
    mmpretrain's data samples, or a tensor (B,) of integers. A sample whose label is no class, such as -1, is left out.

    Args:
        tau: Temperature, positive.
        alpha: Weight of the labelled class's part, not negative.
        beta: Weight of the other classes' part, not negative.
        loss_weight: Factor of the loss, not negative.

    Source: Zhao et al., Decoupled knowledge distillation (CVPR 2022), TCKD and NCKD. To remove the labelled class,
    their code (mdistiller) takes 1000 from its logit; here it is left out. Their code also lets the weight rise over
    the first epochs; ``LossWeightHook`` with ``ramp=True`` does that.
    """

    def __init__(self, tau: float = 4.0, alpha: float = 1.0, beta: float = 8.0, loss_weight: float = 1.0):
        super().__init__(loss_weight)
        check_temperature(tau)
        check_weight('alpha', alpha)
        check_weight('beta', beta)
        self.tau, self.alpha, self.beta = tau, alpha, beta
        self.reader = LogitsReader('softmax')

    def attach(self, teacher: nn.Module, taps: Sequence) -> None:
        """See that the teacher's heads have a softmax.

        Raises:
            ValueError: One has a sigmoid.
        """
        self.reader.attach(teacher, taps)
        for index, tap in enumerate(taps):
            if self.reader.told(index) == 'sigmoid':
                raise ValueError(
                    f'the head of teacher tap {tap} has a sigmoid and DKD needs a softmax: take LogitsKDLoss'
                )

    def targets(
        self, teacher_feats: Tensor | Sequence[Tensor], data_samples: Tensor | Sequence | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """The teacher's logits, and the labels (B,).

        Raises:
            ValueError: The batch has no label, or not one class for each sample.
        """
        self.reader.check(as_sequence(teacher_feats))
        return super().targets(teacher_feats), labels_of(data_samples)

    def compare(self, student_feats: Tensor | Sequence[Tensor], targets: tuple[list[Tensor], Tensor]) -> Tensor:
        logits, labels = targets
        return self.compare_maps(student_feats, logits, [(labels,)] * len(logits))

    def distance(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """(B,): the weighted sum of the two divergences; NaN where the label is no class."""
        if student.dim() != 2 or student.shape[1] < 2:
            raise ValueError(f'the logits are {tuple(student.shape)}: DKD needs (B, K) with at least two classes')
        check_batch(student, labels)
        labels = labels.to(student.device)
        count = student.shape[1]
        known = (labels >= 0) & (labels < count)
        label = labels.where(known, 0).unsqueeze(1)
        others = torch.arange(count - 1, device=student.device).expand(len(student), -1)
        others = others + (others >= label)

        def split(logits: Tensor) -> tuple[Tensor, Tensor]:
            """The odds of the labelled class, as a logit (B,), and the logits of the others (B, K - 1)."""
            rest = (logits / self.tau).gather(1, others)
            return (logits / self.tau).gather(1, label).squeeze(1) - rest.logsumexp(1), rest

        (odds, rest), (teacher_odds, teacher_rest) = split(student), split(teacher)
        target_part = sigmoid_divergence(odds, teacher_odds)
        others_part = softmax_divergence(rest, teacher_rest, dim=1).squeeze(1)
        distance = self.tau**2 * (self.alpha * target_part + self.beta * others_part)
        return distance.where(known, torch.nan)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, tau={self.tau}, alpha={self.alpha}, beta={self.beta}'
