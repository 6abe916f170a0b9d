"""The loss contract: what the distiller asks of a loss, and what it may rely on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class DistillationLoss(nn.Module):
    """Base of the losses that compare a student with a teacher. A subclass writes :meth:`compare`, and what else it needs.

    The distiller calls, in this order:

    1. ``attach(teacher, taps)`` once, when the model is built: look at the teacher's modules.
    2. ``targets(teacher_feats, data_samples)`` in each step, before the student runs. It gives whatever the loss needs of
       the teacher. The maps themselves are freed where it keeps less than them.
    3. ``compare(student_feats, targets)`` in the same step, when the student's maps are there. It gives the loss.

    ``loss(student_feats, teacher_feats)`` does the last two at once. Maps come as sequences, shallow to deep, one for each
    tap of the entry. A loss owns two attributes that hooks read and write:

    - ``loss_weight``, a float: ``LossWeightHook`` changes it during training;
    - ``left_out``, a count on the device of the samples that had no part in the loss, because they were not finite:
      ``FiniteLossHook`` reports it and sets it back to 0.

    Any other module that is called as ``loss(student_feats, teacher_feats)`` works as well: it gets the maps as they are,
    and has no part in what hooks do.

    Args:
        loss_weight: Factor of the whole loss, finite and not negative.

    Raises:
        ValueError: ``loss_weight`` is not such a number.

    Source: this project.
    """

    def __init__(self, loss_weight: float = 1.0):
        super().__init__()
        number = isinstance(loss_weight, (int, float)) and not isinstance(loss_weight, bool)
        if not number or not math.isfinite(loss_weight):
            raise ValueError(f'loss_weight is {loss_weight!r}: give a number, 0 or above')
        if loss_weight < 0:
            raise ValueError(f'loss_weight is {loss_weight}: it must not be negative')
        self.loss_weight = loss_weight
        self.left_out: int | Tensor = 0

    def attach(self, teacher: nn.Module, taps: Sequence) -> None:
        """Look at the teacher before training; ``taps`` are those of this loss on it.

        Raises:
            ValueError: The teacher has not what the loss needs.
        """

    def check_channels(self, teacher_channels: Sequence[int]) -> None:
        """See before training whether the teacher's maps fit; ``teacher_channels`` has the size of dimension 1 of each.

        Raises:
            ValueError: They do not; the message begins with the loss's field.
        """

    def warnings(self, names: Sequence[str], student_shapes: Sequence[Sequence[int]]) -> list[str]:
        """What a user should know of student maps of these shapes; asked once, at the first training step.

        Args:
            names: The student's taps.
            student_shapes: The shapes of their maps.
        """
        return []

    def targets(self, teacher_feats: Sequence[Tensor], data_samples: Sequence | None = None) -> Any:
        """What the loss needs of the teacher for one batch: here, the maps themselves, detached.

        Args:
            teacher_feats: The teacher's maps.
            data_samples: The batch's samples, for losses that look at labels.
        """
        return [feat.detach() for feat in teacher_feats]

    def compare(self, student_feats: Sequence[Tensor], targets: Any) -> Tensor:
        """The loss of student maps against :meth:`targets`: a scalar, differentiable in every student map."""
        raise NotImplementedError(f'{type(self).__name__} has no compare(student_feats, targets): write it')

    def statistics(self) -> dict[str, Tensor]:
        """What ``SpectralNormHook`` logs of the last batch as ``lipschitz/<name>_<k>``: by name, (n,) values on the device.

        No name may contain ``loss``: MMEngine adds up whatever is called so.
        """
        return {}

    def forward(
        self, student_feats: Sequence[Tensor], teacher_feats: Sequence[Tensor], data_samples: Sequence | None = None
    ) -> Tensor:
        """The loss of one batch.

        Args:
            student_feats: Maps (B, C, H, W), or what the loss takes, shallow to deep. Differentiable.
            teacher_feats: As many maps of the same batch. Detached here.
            data_samples: The batch's samples, for losses that look at labels.

        Returns:
            Scalar, float32 (float64 for float64 maps).

        Raises:
            ValueError: The two sides do not go together.
        """
        return self.compare(student_feats, self.targets(teacher_feats, data_samples))

    def extra_repr(self) -> str:
        return f'loss_weight={self.loss_weight}'


class MapwiseLoss(DistillationLoss):
    """Base of the losses that compare map by map: the sum over maps of the mean over samples of a distance.

        L = loss_weight * sum over maps of mean over samples of distance(student map, teacher map)

    A subclass writes :meth:`distance`. This class does what every such loss needs: it counts the maps, brings half
    precision to float32, checks the shapes, and leaves out the samples that are not finite on either side, with no
    gradient. One map alone may be given as a tensor.

    Source: this project.
    """

    #: Whether the two sides of a pair must have one shape; a loss that pools or projects sets it to False.
    equal_shapes = True

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B,): how far apart the two maps of each sample are. Both are float32 or wider, and finite."""
        raise NotImplementedError(f'{type(self).__name__} has no distance(student, teacher): write it')

    def pair_loss(self, student: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
        """The scalar loss of one pair of maps, over the samples that are ``kept``, (B,)."""
        distance = self.distance(student, teacher)
        return distance.where(kept, 0.0).sum() / kept.sum().clamp_min(1)

    def targets(self, teacher_feats: Tensor | Sequence[Tensor], data_samples: Sequence | None = None) -> list[Tensor]:
        return super().targets(as_sequence(teacher_feats), data_samples)

    def compare(self, student_feats: Tensor | Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        student_feats = as_sequence(student_feats)
        check_counts(student_feats, targets)
        total = 0.0
        for i, (student, teacher) in enumerate(zip(student_feats, targets)):
            check_pair(student, teacher, i, self.equal_shapes)
            student, teacher, kept = finite_samples(student, teacher)
            self.left_out = self.left_out + (~kept).sum()
            total = total + self.pair_loss(student, teacher, kept)
        return self.loss_weight * total


def as_sequence(feats: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """A sequence of maps, where one map alone may be given as a tensor."""
    return [feats] if isinstance(feats, Tensor) else feats


def check_counts(student_feats: Sequence, teacher_feats: Sequence) -> None:
    """See that there are as many maps on both sides.

    Raises:
        ValueError: There are not.
    """
    if len(student_feats) != len(teacher_feats):
        raise ValueError(
            f'{len(student_feats)} student maps and {len(teacher_feats)} teacher maps: tap as many modules on both sides'
        )


def check_pair(student: Tensor, teacher: Tensor, index: int, equal_shapes: bool = True) -> None:
    """See that two maps can be compared: they have the same images and, where a loss needs it, the same shape.

    Raises:
        ValueError: They cannot.
    """
    ours, theirs = tuple(student.shape), tuple(teacher.shape)
    if ours[:1] != theirs[:1]:
        raise ValueError(
            f"student map {index} is {ours} and the teacher's {theirs}: a batch of {ours[0]} against one of {theirs[0]}, "
            'so both sides must see the same images'
        )
    if equal_shapes and ours != theirs:
        remedies = []
        if len(ours) == 4 and ours[2:] != theirs[2:]:
            remedies.append('tap stages of equal size')
        if len(ours) == 2:
            remedies.append('give both heads the same classes')
        elif len(ours) == 3 or ours[1] != theirs[1]:
            remedies.append('set connectors=True on this loss, since channels differ')
        raise ValueError(
            f"student map {index} is {ours} and the teacher's {theirs}: this loss needs equal shapes, so "
            f'{" and ".join(remedies)}'
        )


def finite_samples(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both maps at float32 or wider, zero where a sample is not finite on either side, and (B,) which samples are finite.

    The maps are replaced before they are compared: a NaN that is masked afterwards would come back through the derivative.
    """
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    student, teacher = student.to(dtype), teacher.to(dtype)
    kept = student.detach().isfinite().flatten(1).all(1) & teacher.isfinite().flatten(1).all(1)
    sides = (side.where(kept.view(-1, *[1] * (side.dim() - 1)), 0.0) for side in (student, teacher))
    return (*sides, kept)
