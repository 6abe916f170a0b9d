"""The loss contract: what the distiller asks of a loss, and what it may rely on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .checks import check_weight


class DistillationLoss(nn.Module):
    """Base of the losses that compare a student with a teacher. A subclass writes :meth:`compare` and what it needs.

    A loss that compares map with map derives from :class:`.MapwiseLoss` instead, which checks shapes and deals with
    half precision and with samples that are not finite.

    When the model is built, the distiller reads :attr:`views` and calls

    1. ``attach(teacher, taps)``: look at the teacher's modules;
    2. ``check_channels(teacher_channels)``: see whether the teacher's maps fit.

    In each step it calls

    1. ``see_views(input_change)``, if the loss looks at a second view: hear how far the two views are apart;
    2. ``targets(teacher_feats, data_samples)``, before the student runs. It returns what the loss needs of the teacher.
       Return less than the maps where less will do: maps that are not kept are freed;
    3. ``compare(student_feats, targets)``, when the student's maps are there. It returns the loss.

    In the first training step it asks for ``warnings(names, student_shapes)``, which it logs.

    ``loss(student_feats, teacher_feats, data_samples)`` does ``targets`` and ``compare`` at once. Maps come as
    sequences, one map for each tap of the entry, in the order of the taps: shallow to deep. The student's maps are what
    its connectors made of them, where the entry has connectors.

    Hooks use three more things:

    - ``loss_weight``, a float: ``LossWeightHook`` changes it during training, so :meth:`compare` must read it anew.
    - ``left_out``, a count on the device. :meth:`compare` adds the samples that have no part in the loss, because it is
      undefined for them: a map is not finite, for example. ``FiniteLossHook`` reports the count and sets it back to 0.
    - :meth:`statistics`, which ``SpectralNormHook`` logs.

    A loss may have parameters: they are trained and saved with the student.

    Any other module that is called as ``loss(student_feats, teacher_feats)`` works as well. Where the entry has
    connectors it gets the student's maps after them, and otherwise the maps as they are. Hooks do not see it.

    Args:
        loss_weight: Factor of the whole loss, finite and not negative.

    Raises:
        ValueError: ``loss_weight`` is not such a number.

    Source: this project.
    """

    #: Which views of a batch the loss compares: 'first', 'second', or 'both', one after the other in one batch of 2B.
    #: An entry's own ``views`` takes its place; a loss that needs both says 'both' here.
    views = 'first'

    #: Whether this class's :meth:`compare` takes connected maps that are not formed, as
    #: :class:`mmlckd.functional.AffineMap`, and has a :meth:`compare_early`. It does not count in subclasses that have
    #: a ``compare`` of their own.
    streams = False

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
        """See before training whether the teacher's maps fit.

        Args:
            teacher_channels: The channels of each map: the last dimension of tokens (B, N, C), dimension 1 of others.

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
        """Hear before :meth:`targets` how far the second view is from the first: (B,), in pixel values."""

    def targets(self, teacher_feats: Sequence[Tensor], data_samples: Sequence | None = None) -> Any:
        """What the loss needs of the teacher for one batch. By default: the maps themselves, detached.

        Args:
            teacher_feats: The teacher's maps, without gradient, in the precision the teacher ran in.
            data_samples: The batch's samples, for losses that look at labels. None where there are none, and where the
                entry looks at a second view, whose labels nobody knows.

        Returns:
            Anything; :meth:`compare` gets it as it is, once. It may overwrite what is its own, but not the teacher's
            maps, which other losses compare, too.
        """
        return [feat.detach() for feat in teacher_feats]

    def compare_early(self, student_feats: list, targets: Any) -> None:
        """Compare what can be compared before the student's forward is over, where the class ``streams``.

        Called after each of the student's maps of the first view, where the distiller hands them over one by one. What
        is found goes into ``targets``, for :meth:`compare`.

        Args:
            student_feats: A list of maps as in :meth:`compare`, with None for maps that are not there yet. A map that
                is needed no more may be replaced by its :func:`mmlckd.functional.outline`. Its memory is free then.
            targets: What :meth:`targets` returned for this batch.
        """

    def compare(self, student_feats: Sequence[Tensor], targets: Any) -> Tensor:
        """The loss of one batch, with ``loss_weight`` in it.

        Args:
            student_feats: The student's maps, in the precision the student ran in. Differentiable. Other losses compare
                them, too: do not change them in place.
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
