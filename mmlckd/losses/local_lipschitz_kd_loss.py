"""Local Lipschitz guidance: the student's outputs move between two views of an image as the teacher's do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmlckd.functional import output_change, relative_change_error
from mmlckd.registry import MODELS

from .mapwise_loss import MapwiseLoss, as_sequence


@MODELS.register_module()
class LocalLipschitzKDLoss(MapwiseLoss):
    """Match how an output changes from one view of an image to another, student to teacher.

    A Lipschitz constant bounds |f(x) - f(x')| by L |x - x'|. This loss compares the left side itself, with its
    direction, at the two views x and x' that the distiller's ``view`` makes of every image. With ds and dt the changes
    of the student's and the teacher's output from x to x',

        L = loss_weight * sum over taps of mean over images and positions of |ds - dt|^2 / (|dt|^2 + floor).

    It needs no connector where student and teacher share an output space, such as logits. Between feature maps it takes
    connectors; their bias cancels in a difference.

    Args:
        loss_weight: Factor of the loss, finite and not negative.
        center: Take from each change its mean over classes: a shift of all logits changes no class. Set it to False for
            feature maps.
        floor: Added to the teacher's squared change, in squared output units, positive. It keeps images at which the
            teacher does not move from dominating.

    Raises:
        ValueError: An argument is out of range.

    Source: this project. Matching derivatives of two networks: Srinivas and Fleuret, Knowledge transfer with Jacobian
    matching (ICML 2018); Czarnecki et al., Sobolev training (NeurIPS 2017). Taking finite differences between images of
    the data, and dividing by the teacher's change, are this project's.
    """

    views = 'both'

    def __init__(self, loss_weight: float = 1.0, center: bool = True, floor: float = 1.0):
        super().__init__(loss_weight)
        if not floor > 0:
            raise ValueError(f'floor is {floor}: give a positive number')
        self.center = center
        self.floor = floor
        self._input_change: Tensor | None = None
        self._changes: list[Tensor] = []

    def see_views(self, input_change: Tensor) -> None:
        """Keep (B,), how far the views are apart, for :meth:`statistics`."""
        self._input_change = input_change

    def targets(self, teacher_feats: Tensor | Sequence[Tensor], data_samples: Sequence | None = None) -> list[Tensor]:
        """dt of every tap. The first half of each map is of the first view, the second half of the second."""
        return [output_change(feat, self.center) for feat in super().targets(teacher_feats)]

    def compare(self, student_feats: Tensor | Sequence[Tensor], targets: Any) -> Tensor:
        """Loss of student outputs of both views, (2B, K), (2B, K, H, W) or (2B, N, K), against :meth:`targets`."""
        self._changes = []
        return self.compare_maps([output_change(feat, self.center) for feat in as_sequence(student_feats)], targets)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        self._changes.append(torch.stack([change.detach().flatten(1).norm(dim=1) for change in (student, teacher)]))
        return relative_change_error(student, teacher, self.floor)

    def statistics(self) -> dict[str, Tensor]:
        """``local_student`` and ``local_teacher``, one value a tap: how far outputs move for how far inputs move.

        Each value is the sum of the outputs' changes over the sum of the inputs' changes, in output units per pixel
        value. A mean of quotients would be ruled by images whose two views are nearly the same.
        """
        if self._input_change is None or not self._changes:
            return {}
        moved = self._input_change.sum().clamp_min(torch.finfo(self._input_change.dtype).tiny)
        sums = torch.stack(self._changes).sum(-1) / moved
        return dict(local_student=sums[:, 0], local_teacher=sums[:, 1])

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, center={self.center}, floor={self.floor}'
