"""The Lipschitz loss: the student's transmitting norms follow the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmlckd.functional import AffineMap, outline, transmitting_norm
from mmlckd.registry import MODELS

from .checks import check_batch, check_consecutive, check_weights, pick_weights
from .distillation_loss import DistillationLoss


class PairNorms(NamedTuple):
    """Transmitting norms of one pair of taps, (B,) each, still on the device."""

    student: Tensor
    teacher: Tensor


@MODELS.register_module()
class LipschitzKDLoss(DistillationLoss):
    """Match the transmitting norms of consecutive feature maps, student to teacher.

    n maps, shallow to deep, give n - 1 pairs. With s_k and t_k the norms of pair k in student and teacher,

        L = loss_weight * sum_k w_k * mean over the batch of d(s_k, t_k).

    A sample whose norm is below ``eps`` on either side, or is not finite, is left out of its pair's mean, and gets no
    gradient.

    Args:
        loss_weight: Factor of the whole loss, not negative.
        distance: 'log' (log(s / t))^2, 'relative' ((s - t) / t)^2, or 'absolute' (s - t)^2. The first two do not
            depend on the scale of the maps.
        center: Norms of maps centred over positions. None: True for the scale-free distances and False for
            'absolute', which is then the authors' converged loss.
        pair_weights: 'geometric' (2^-(n-1-k), k = 0 .. n-2: the deepest pair weighs 1/2, the one before 1/4), 'uniform'
            (1 / (n - 1) each), or a list of n - 1 numbers, none of them negative.
        num_iters: Iterations of :func:`mmlckd.functional.transmitting_norm`.
        eps: Norm below which a sample is left out, in squared feature units.

    Source: LONDON (Shang et al., ICCV 2021), the Lipschitz loss; distance 'absolute' with geometric weights. The
    scale-free distances and the centring are this project's.
    """

    streams = True

    DISTANCES = {
        'log': lambda student, teacher: (student / teacher).log().square(),
        'relative': lambda student, teacher: ((student - teacher) / teacher).square(),
        'absolute': lambda student, teacher: (student - teacher).square(),
    }

    def __init__(
        self,
        loss_weight: float = 1.0,
        distance: str = 'log',
        center: bool | None = None,
        pair_weights: str | Sequence[float] = 'geometric',
        num_iters: int = 10,
        eps: float = 1e-12,
    ):
        super().__init__(loss_weight)
        if distance not in self.DISTANCES:
            raise ValueError(f'distance is {distance!r}: choose one of {", ".join(map(repr, self.DISTANCES))}')
        check_weights('pair_weights', pair_weights, ('geometric', 'uniform'))
        if num_iters < 1:
            raise ValueError(f'num_iters is {num_iters}: at least 1 is needed')
        self.distance = distance
        self.center = distance != 'absolute' if center is None else center
        self.pair_weights = pair_weights
        self.num_iters = num_iters
        self.eps = eps
        self.last_norms: list[PairNorms] = []

    @torch.no_grad()
    def targets(self, teacher_feats: Sequence[Tensor], data_samples: Sequence | None = None) -> list[Tensor]:
        """The norms of every pair of teacher maps (B, C, H, W) or tokens (B, N, C), (B,) each."""
        return [self._norm(*pair) for pair in zip(teacher_feats, teacher_feats[1:])]

    def compare(self, student_feats: Sequence[Tensor | AffineMap], targets: list[Any]) -> Tensor:
        """Loss of student maps against :meth:`targets`.

        Args:
            student_feats: n >= 2 maps (B, C, H, W) or tokens (B, N, C), shallow to deep. Differentiable. Channels and
                sizes may differ from the teacher's.
            targets: The norms of the teacher's n - 1 pairs.

        Returns:
            Scalar, float32 (float64 for float64 maps), attached to every student map.

        Raises:
            ValueError: Unequal numbers of maps, fewer than two, unequal batches, or weights that do not fit.
        """
        check_consecutive(student_feats, targets, 'the Lipschitz loss')
        weights = self.weights_for(len(targets))
        self.compare_early(list(student_feats), targets)
        self.last_norms = [PairNorms(norms.student.detach(), norms.teacher) for norms in targets]
        total: Any = 0.0
        for weight, norms, last in zip(weights, targets, self.last_norms):
            total = total + weight * self._masked_mean(norms.student, norms.teacher, self.kept(last))
        return self.loss_weight * total

    def compare_early(self, student_feats: list[Tensor | AffineMap | None], targets: list[Any]) -> None:
        """Put the student's norm beside the teacher's, of each pair that is there."""
        for k, (feat_in, feat_out) in enumerate(zip(student_feats, student_feats[1:])):
            if feat_in is not None and feat_out is not None and not isinstance(targets[k], PairNorms):
                check_batch(feat_in, targets[k])
                targets[k] = PairNorms(self._norm(feat_in, feat_out), targets[k])
        for i, feat in enumerate(student_feats):
            if feat is not None and all(isinstance(pair, PairNorms) for pair in targets[max(i - 1, 0) : i + 1]):
                student_feats[i] = outline(feat)

    def warnings(self, names: Sequence[str], student_shapes: Sequence[Sequence[int]]) -> list[str]:
        """Pairs of maps of one position, which say nothing once they are centred."""
        if not self.center:
            return []
        found = []
        for k, (before, after) in enumerate(zip(student_shapes, student_shapes[1:])):
            sides = list(map(min, before[2:], after[2:])) if len(before) == 4 else [min(before[1], after[1])]
            if set(sides) == {1}:
                found.append(
                    f'the pair {names[k]} to {names[k + 1]} is compared at one position, where a centred map is zero, '
                    'so it is left out: use larger images, tap shallower modules, or set center=False'
                )
        return found

    def statistics(self) -> dict[str, Tensor]:
        """``student``, ``teacher`` and ``log_ratio``, (n - 1,) each: norms of every pair, and log(student / teacher).

        They are means over the samples that the loss keeps, and 0 where it keeps none.
        """
        rows = []
        for norms in self.last_norms:
            kept = self.kept(norms)
            student, teacher = (side.where(kept, 1.0) for side in norms)
            values = torch.stack([student, teacher, (student / teacher).log()])
            rows.append((values * kept).sum(1) / kept.sum().clamp_min(1))
        return dict(zip(('student', 'teacher', 'log_ratio'), torch.stack(rows, dim=1))) if rows else {}

    def weights_for(self, num_pairs: int) -> list[float]:
        """The weight of each pair, shallow to deep."""
        geometric = [2.0 ** (k - num_pairs) for k in range(num_pairs)]
        named = dict(geometric=geometric, uniform=[1.0 / max(num_pairs, 1)] * num_pairs)
        return pick_weights('pair_weights', self.pair_weights, num_pairs, 'pair', named)

    def _norm(self, feat_in: Tensor | AffineMap, feat_out: Tensor | AffineMap) -> Tensor:
        return transmitting_norm(feat_in, feat_out, num_iters=self.num_iters, center=self.center)

    def kept(self, norms: PairNorms) -> Tensor:
        """(B,): which samples count in the mean over the batch."""
        return (torch.minimum(*norms) >= self.eps) & torch.add(*norms).isfinite()

    def _masked_mean(self, student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
        # Both sides are replaced before the distance is taken: a NaN that is masked later comes back in the derivative.
        self.left_out = self.left_out + (~valid).sum()
        distance = self.DISTANCES[self.distance](student.where(valid, 1.0), teacher.where(valid, 1.0))
        return distance.sum() / valid.sum().clamp_min(1)

    def extra_repr(self) -> str:
        options = f'distance={self.distance!r}, center={self.center}, pair_weights={self.pair_weights!r}'
        return f'{super().extra_repr()}, {options}'
