"""Losses that compare map by map, and what they need: full precision, and samples that are finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmlckd.compatibility import not_compiled

from .checks import check_counts, check_pair
from .distillation_loss import DistillationLoss


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
            extra: What a subclass hands to :meth:`compare_maps` for this map.

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

    def compare(self, student_feats: Tensor | Sequence[Tensor], targets: Any) -> Tensor:
        return self.compare_maps(student_feats, targets)

    def compare_maps(
        self,
        student_feats: Tensor | Sequence[Tensor],
        teacher_feats: Sequence[Tensor],
        extras: Sequence[tuple] | None = None,
    ) -> Tensor:
        """``compare`` for a subclass whose ``targets`` are more than maps, or whose distance needs more.

        Args:
            student_feats: As in ``compare``.
            teacher_feats: The teacher's maps.
            extras: Further arguments of :meth:`distance`, a tuple for each map.
        """
        student_feats = as_sequence(student_feats)
        check_counts(student_feats, teacher_feats)
        total: Any = 0.0
        for i, (student, teacher) in enumerate(zip(student_feats, teacher_feats)):
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


@not_compiled  # torch 2.11 frees `kept` before the hook's graph takes it
def stop_gradient(feat: Tensor, kept: Tensor) -> None:
    """Let no gradient pass ``feat``, (B, ...), in the samples that are not ``kept``, (B,), whatever it is there."""

    def masked(gradient: Tensor | None) -> Tensor | None:
        return None if gradient is None else gradient.where(_rows(kept, gradient), 0.0)

    if feat.requires_grad:
        feat.register_hook(masked)


def _rows(kept: Tensor, feat: Tensor) -> Tensor:
    return kept.view(-1, *[1] * (feat.dim() - 1))
