"""The loss contract: what the distiller asks of a loss, and what it may rely on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_counts, check_pair, check_weight


class DistillationLoss(nn.Module):
    """Base of the losses that compare a student with a teacher. A subclass writes :meth:`compare` and what it needs.

    The distiller calls, in this order:

    1. ``attach(teacher, taps)`` once, when the model is built: look at the teacher's modules.
    2. ``targets(teacher_feats, data_samples)`` in each step, before the student runs. It returns what the loss needs of
       the teacher. Return less than the maps where less will do: maps that are not kept are freed.
    3. ``compare(student_feats, targets)`` in the same step, when the student's maps are there. It returns the loss.

    ``loss(student_feats, teacher_feats, data_samples)`` does steps 2 and 3 at once. Maps come as sequences, one map for
    each tap of the entry, in the order of the taps: shallow to deep. The student's maps are what its connectors made of
    them, where the entry has connectors.

    Hooks use three more things:

    - ``loss_weight``, a float: ``LossWeightHook`` changes it during training, so :meth:`compare` must read it anew.
    - ``left_out``, a count on the device. :meth:`compare` adds the samples that have no part in the loss, because their
      numbers are not finite. ``FiniteLossHook`` reports the count and sets it back to 0.
    - :meth:`statistics`, which ``SpectralNormHook`` logs.

    A loss may have parameters: they are trained and saved with the student.

    Any other module that is called as ``loss(student_feats, teacher_feats)`` works as well. It gets the maps as they
    are, and hooks do not see it.

    Args:
        loss_weight: Factor of the whole loss, finite and not negative.

    Raises:
        ValueError: ``loss_weight`` is not such a number.

    Source: this project.
    """

    #: Which views of a batch the loss compares: 'first', 'second', or 'both', one after the other in one batch of 2B.
    #: An entry's own ``views`` takes its place; a loss that needs both says 'both' here.
    views = 'first'

    def __init__(self, loss_weight: float = 1.0):
        super().__init__()
        check_weight('loss_weight', loss_weight)
        self.loss_weight = loss_weight
        self.left_out: int | Tensor = 0

    def attach(self, teacher: nn.Module, taps: Sequence) -> None:
        """Look at the teacher before training. By default: nothing.

        The teacher's weights may not be loaded yet, so read values in :meth:`targets`. Do not register the teacher's
        modules as children of the loss: they would be trained and saved.

        Args:
            teacher: The teacher, in evaluation mode, without gradients.
            taps: This loss's taps on the teacher, :class:`mmlckd.taps.Tap` each.

        Raises:
            ValueError: The teacher lacks what the loss needs.
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

    def see_views(self, input_change: Tensor) -> None:
        """Hear before :meth:`targets` how far the second view is from the first: (B,), in pixel values, 0 to 255 each."""

    def targets(self, teacher_feats: Sequence[Tensor], data_samples: Sequence | None = None) -> Any:
        """What the loss needs of the teacher for one batch. By default: the maps themselves, detached.

        Args:
            teacher_feats: The teacher's maps, without gradient, in the precision the teacher ran in.
            data_samples: The batch's samples, for losses that look at labels. None where there are none.

        Returns:
            Anything; :meth:`compare` gets it as it is, once, and may overwrite it.
        """
        return [feat.detach() for feat in teacher_feats]

    def compare(self, student_feats: Sequence[Tensor], targets: Any) -> Tensor:
        """The loss of one batch, with ``loss_weight`` in it.

        Args:
            student_feats: The student's maps, in the precision the student ran in. Differentiable.
            targets: What :meth:`targets` returned for this batch.

        Returns:
            Scalar, float32 (float64 for float64 maps), attached to every student map, finite whatever the maps hold.

        Raises:
            ValueError: The two sides do not go together.
        """
        raise NotImplementedError(f'{type(self).__name__} has no compare(student_feats, targets): write it')

    def statistics(self) -> dict[str, Tensor]:
        """What ``SpectralNormHook`` logs of the last batch, as ``lipschitz/<name>_<k>``.

        By name, (n,) values, still on the device. No name may contain ``loss``: MMEngine adds up whatever is called so.
        By default: nothing.
        """
        return {}

    def forward(
        self, student_feats: Sequence[Tensor], teacher_feats: Sequence[Tensor], data_samples: Sequence | None = None
    ) -> Tensor:
        """:meth:`targets` and :meth:`compare` at once; arguments, result and errors are theirs."""
        return self.compare(student_feats, self.targets(teacher_feats, data_samples))

    def extra_repr(self) -> str:
        return f'loss_weight={self.loss_weight}'


class MapwiseLoss(DistillationLoss):
    """Base of the losses that compare map by map: the sum over maps of the mean over samples of a distance.

        L = loss_weight * sum over maps of mean over kept samples of distance(student map, teacher map)

    A subclass writes :meth:`distance`; this class does the rest. It counts the maps and checks their shapes. It
    switches autocast off and brings half precision to float32. It leaves out samples that are not finite on either
    side, and samples whose distance overflows; neither get a gradient. The loss of an empty batch is 0. One map alone
    may be given as a tensor.

    Source: this project.
    """

    #: What must agree between the two sides of a pair: 'shape', 'channels' (sizes may differ), or 'batch' alone.
    alike = 'shape'

    def distance(self, student: Tensor, teacher: Tensor, *extra: Any) -> Tensor:
        """How far apart the two maps of each sample are.

        Args:
            student: (B, ...), float32 or wider, finite. Differentiable.
            teacher: (B, ...), the same.
            extra: What a subclass's :meth:`compare` hands over for this map.

        Returns:
            (B,). A sample whose distance is not finite is left out.
        """
        raise NotImplementedError(f'{type(self).__name__} has no distance(student, teacher): write it')

    def pair_loss(self, student: Tensor, teacher: Tensor, kept: Tensor, *extra: Any) -> Tensor:
        """The scalar loss of one pair of maps.

        A subclass writes it in place of :meth:`distance` where the loss is no mean over samples.

        Args:
            student, teacher, extra: As in :meth:`distance`.
            kept: (B,), which samples count; the others are zero on both sides.
        """
        distance = self.distance(student, teacher, *extra)
        fits = distance.detach().isfinite()
        self.left_out = self.left_out + (kept & ~fits).sum()
        stop_gradient(student, fits)
        kept = kept & fits
        return distance.where(kept, 0.0).sum() / kept.sum().clamp_min(1)

    def targets(self, teacher_feats: Tensor | Sequence[Tensor], data_samples: Sequence | None = None) -> Any:
        return super().targets(as_sequence(teacher_feats), data_samples)

    def compare(
        self, student_feats: Tensor | Sequence[Tensor], targets: Any, extras: Sequence[tuple] | None = None
    ) -> Tensor:
        """As the base has it. A subclass that overrides this hands on the teacher's maps, and ``extras``: further
        arguments of :meth:`distance`, a tuple for each map.
        """
        student_feats = as_sequence(student_feats)
        check_counts(student_feats, targets)
        total = 0.0
        for i, (student, teacher) in enumerate(zip(student_feats, targets)):
            check_pair(student, teacher, i, self.alike)
            with full_precision(student):
                student, teacher, kept = finite_samples(student, teacher)
                self.left_out = self.left_out + (~kept).sum()
                extra = extras[i] if extras else ()
                total = total + (self.pair_loss(student, teacher, kept, *extra) if len(student) else student.sum())
        return self.loss_weight * total


def as_sequence(feats: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """A sequence of maps, where one map alone may be given as a tensor."""
    return [feats] if isinstance(feats, Tensor) else feats


def full_precision(feat: Tensor) -> torch.autocast:
    """A context without autocast on a tensor's device: it would take products of float32 maps in half precision."""
    return torch.autocast(feat.device.type, enabled=False)


def finite_samples(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both maps at float32 or wider, zero in samples that are not finite on either side; and (B,) which samples are.

    The maps are replaced before they are compared: a NaN that is masked later comes back through the derivative.
    """
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    student, teacher = student.to(dtype), teacher.to(dtype)
    kept = student.detach().isfinite().flatten(1).all(1) & teacher.isfinite().flatten(1).all(1)
    student, teacher = (side.where(_rows(kept, side), 0.0) for side in (student, teacher))
    return student, teacher, kept


def stop_gradient(feat: Tensor, kept: Tensor) -> None:
    """Let no gradient pass ``feat``, (B, ...), in the samples that are not ``kept``, (B,), whatever it is there."""

    def masked(gradient: Tensor | None) -> Tensor | None:
        return None if gradient is None else gradient.where(_rows(kept, gradient), 0.0)

    if feat.requires_grad:
        feat.register_hook(masked)


def _rows(kept: Tensor, feat: Tensor) -> Tensor:
    return kept.view(-1, *[1] * (feat.dim() - 1))
