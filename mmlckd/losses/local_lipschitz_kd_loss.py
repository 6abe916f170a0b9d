"""Local Lipschitz guidance: the student's outputs move between two views of an image as the teacher's do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmlckd.functional import output_change, relative_change_error
from mmlckd.registry import MODELS

from .heads import channels_last
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
        self._channels_last: list[bool | None] = []
        self._next_input_change: Tensor | None = None
        self._input_change: Tensor | None = None
        self._changes: list[Tensor] = []  # of each tap (3, rows): the student's, the teacher's, and which rows count

    def attach(self, teacher: nn.Module, taps: Sequence) -> None:
        """Read off the teacher which taps are linear layers, whose channels are last in any number of dimensions."""
        self._channels_last = [channels_last(teacher, tap) for tap in taps]

    def see_views(self, input_change: Tensor) -> None:
        """Keep (B,), how far the views of the coming batch are apart, for :meth:`statistics`."""
        self._next_input_change = input_change

    def targets(self, teacher_feats: Tensor | Sequence[Tensor], data_samples: Sequence | None = None) -> list[Tensor]:
        """dt of every tap. The first half of each map is of the first view, the second half of the second."""
        return self._output_changes(super().targets(teacher_feats))

    def compare(self, student_feats: Tensor | Sequence[Tensor], targets: Any) -> Tensor:
        """Loss of student outputs of both views, (2B, K), (2B, K, H, W) or (2B, N, K), against :meth:`targets`.

        Channels are last in three dimensions, and in what a linear layer gives.

        Raises:
            ValueError: The outputs are not equally many for each image of both views, or do not fit the teacher's.
        """
        self._input_change, self._next_input_change, self._changes = self._next_input_change, None, []
        changes = self._output_changes(as_sequence(student_feats))
        images = len(changes[0]) if self._input_change is None else len(self._input_change)
        for i, change in enumerate(changes):
            if len(change) % max(images, 1):
                raise ValueError(
                    f'student map {i} has {2 * len(change)} rows for {images} images in two views: '
                    'tap a module that gives equally many rows for each image'
                )
        if not images:  # no pair has a loss then
            self._changes = [change.detach().new_zeros(3, 0) for change in changes]
        return self.compare_maps(changes, targets)

    def _output_changes(self, feats: Sequence[Tensor]) -> list[Tensor]:
        last = self._channels_last or [None] * len(feats)
        maps = [feat.movedim(-1, 1) if feat.dim() == 4 and at_end else feat for feat, at_end in zip(feats, last)]
        return [output_change(feat, self.center) for feat in maps]

    def pair_loss(self, student: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
        sizes = [change.detach().flatten(1).norm(dim=1) for change in (student, teacher)]
        self._changes.append(torch.stack([*sizes, kept & torch.add(*sizes).isfinite()]))
        return super().pair_loss(student, teacher, kept)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relative_change_error(student, teacher, self.floor)

    def statistics(self) -> dict[str, Tensor]:
        """``local_student`` and ``local_teacher``, one value a tap: how far outputs move for how far inputs move.

        Each value is the sum of the outputs' changes over the sum of the inputs' changes, in output units per pixel
        value. Both sums run over the images of the last batch that the loss keeps; without any, or if none of them
        moved, the value is 0. The outputs' changes are those that the loss compares, so with ``center`` they are
        centred. A mean of quotients would be ruled by images whose two views are nearly the same.
        """
        if self._input_change is None or not self._changes:
            return {}
        quotients = torch.stack([self._quotients(change, self._input_change) for change in self._changes])
        return dict(local_student=quotients[:, 0], local_teacher=quotients[:, 1])

    @staticmethod
    def _quotients(changes: Tensor, input_change: Tensor) -> Tensor:
        """(2,): the student's and the teacher's quotient. Where an image has several rows, it is kept if all are."""
        *sizes, kept = changes.view(3, len(input_change), -1 if len(input_change) else 1).unbind()
        kept = kept.bool().all(1) & input_change.isfinite()
        moved = input_change.where(kept, 0.0).sum()
        sums = torch.stack([size.sum(1).where(kept, 0.0).sum() for size in sizes])
        return (sums / moved).where(moved > 0, 0.0)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, center={self.center}, floor={self.floor}'
