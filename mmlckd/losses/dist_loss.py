"""Distillation by correlations of predictions (DIST)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmlckd.registry import MODELS

from .checks import check_temperature, check_weight
from .logits import LogitsReader
from .mapwise_loss import MapwiseLoss, as_sequence

_EPS = 1e-8  # the authors'


@MODELS.register_module()
class DISTLoss(MapwiseLoss):
    """Match predictions up to scale and offset: within each sample over classes, and within each class over samples.

    With Y = softmax(logits / tau), one row a sample and one column a class, and r Pearson's correlation,

        L = loss_weight * tau^2 * sum over taps of
            (beta * mean over rows of 1 - r(row^student, row^teacher)
             + gamma * mean over columns of 1 - r(column^student, column^teacher))

    Logits (B, K), tokens (B, N, K) or maps (B, K, H, W), K at least 2. Each token or position is a row, and so is each
    anchor of a position. Differentiable in the student's logits. Samples that are not finite count nowhere. A row or
    column that is constant on one side has no correlation and counts as 0. With a single row this is every column.

    Args:
        tau: Temperature, positive.
        beta: Weight of the rows' part (inter-class), not negative.
        gamma: Weight of the columns' part (intra-class), not negative.
        loss_weight: Factor of the loss, not negative.
        activation, num_classes: See :class:`mmlckd.losses.logits.LogitsReader`; with 'sigmoid', Y is the sigmoid.

    Raises:
        ValueError: As :class:`.LogitsKDLoss` does; and where there is only one class.

    Source: Huang et al., Knowledge distillation from a stronger teacher (NeurIPS 2022). From their code
    (DIST_KD) come the factor tau^2, the 1e-8 in the correlation's denominator, the rows of maps, the sigmoid, and the
    default weights. In their code a constant column counts as 1, which adds a constant to the loss.
    """

    def __init__(
        self,
        tau: float = 1.0,
        beta: float = 1.0,
        gamma: float = 1.0,
        loss_weight: float = 1.0,
        activation: str = 'auto',
        num_classes: int | None = None,
    ):
        super().__init__(loss_weight)
        check_temperature(tau)
        check_weight('beta', beta)
        check_weight('gamma', gamma)
        self.tau, self.beta, self.gamma = tau, beta, gamma
        self.reader = LogitsReader(activation, num_classes)

    def attach(self, teacher: nn.Module, taps: Sequence) -> None:
        self.reader.attach(teacher, taps)

    def targets(self, teacher_feats: Tensor | Sequence[Tensor], data_samples: Sequence | None = None) -> list[Tensor]:
        self.reader.check(as_sequence(teacher_feats))
        return super().targets(teacher_feats)

    def compare(self, student_feats: Tensor | Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        return self.compare_maps(student_feats, targets, [(index,) for index in range(len(targets))])

    def pair_loss(self, student: Tensor, teacher: Tensor, kept: Tensor, index: int) -> Tensor:
        student, teacher = self._rows(student, index), self._rows(teacher, index)
        kept = kept.repeat_interleave(len(student) // len(kept)).to(student.dtype)
        rows = _distance(student, teacher, student.new_ones(1, student.shape[1]))
        columns = _distance(student.mT, teacher.mT, kept.unsqueeze(0))
        inter = (rows * kept).sum() / kept.sum().clamp_min(1)
        return self.tau**2 * (self.beta * inter + self.gamma * columns.mean())

    def _rows(self, logits: Tensor, index: int) -> Tensor:
        """(R, K): the predictions at all positions of all samples, those of one sample together."""
        logits = self.reader.distributions(logits / self.tau, index)
        if logits.shape[1] < 2:
            raise ValueError(f'the logits are {tuple(logits.shape)}: DIST needs at least two classes')
        predictions = logits.softmax(1) if self.reader.activation_at(index) == 'softmax' else logits.sigmoid()
        return predictions.movedim(1, -1).reshape(-1, logits.shape[1])

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, tau={self.tau}, beta={self.beta}, gamma={self.gamma}'


def _distance(student: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
    """(R,): 1 - r of each row over the entries that are ``kept``, (1, M); 0 where one side is constant."""

    def centred(row: Tensor) -> Tensor:
        row = row * kept
        centred = (row - row.sum(1, keepdim=True) / kept.sum().clamp_min(1)) * kept
        sizes = [torch.linalg.vector_norm(side.detach(), dim=1, keepdim=True) for side in (centred, row)]
        return centred.where(sizes[0] > 8 * torch.finfo(row.dtype).eps * sizes[1], 0.0)  # what is left is rounding

    student, teacher = centred(student), centred(teacher)
    lengths = torch.linalg.vector_norm(student, dim=1) * torch.linalg.vector_norm(teacher, dim=1)
    correlation = (student * teacher).sum(1) / (lengths + _EPS)
    return (1 - correlation).where(lengths > 0, 0.0)
