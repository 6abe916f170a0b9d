"""OFD: the overhaul of feature distillation, the base that the authors add the Lipschitz loss to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmlckd.functional import AffineMap, outline, partial_squared_distance
from mmlckd.functional.pooling import count_positions
from mmlckd.registry import MODELS

from .checks import check_counts, check_pair, check_weights, pick_weights
from .distillation_loss import DistillationLoss
from .margins import BATCHES, MeasuredMargin, is_affine_norm, norm_before, relu_margin
from .positions import as_map


class _Compared(NamedTuple):
    """The partial squared distance of one map, over the batch, and how many samples are not in it."""

    distance: Tensor
    left_out: Tensor


@MODELS.register_module()
class OFDLoss(DistillationLoss):
    """Partial squared distance to the margin-rectified teacher maps.

    With T' = max(T, m_c), m_c the margin of channel c, and n maps,

        L = loss_weight / B * sum_i w_i * sum over entries with S > T' or T' > 0 of (S - T')^2.

    This sum over positions grows with the images: from 28 to 224 px it is 64 times as large. With ``reduction='mean'``
    the sum of each map is divided by its number of positions, so one weight fits images of any size.

    Maps (B, C, H, W), or tokens (B, N, C), of equal shape on both sides. The margin of a channel is the mean of the
    negative values that the teacher gives there. It follows from the batch norm that gives the map; where there is none
    (ConvNeXt, Swin, ViT), it is measured on the first 20 training batches, which the log says. The measured values are
    part of checkpoints, so a resumed run goes on with them.

    A sample with a map that is not finite on either side, or whose squares overflow, is left out for that map, with no
    gradient; the batch size B still counts it.

    Args:
        loss_weight: Factor of the loss, not negative.
        map_weights: 'geometric' (2^-(n-1-i), i = 0 .. n-1: the deepest map weighs 1, the one before 1/2), or a list of
            n numbers, none of them negative.
        margins_from: Paths of the teacher's batch norms, one a tap. None: the tapped modules themselves; or, where an
            activation's input is tapped, the last batch norm beside it. For the ReLU that ends a residual block this is
            the norm of the last convolution. Where that is no batch norm, the margins are measured.
        reduction: 'sum' over positions, as the authors have it, or 'mean'.

    Raises:
        ValueError: An option is wrong.

    Source: Heo et al. (ICCV 2019), equations of sections 3.2 and 3.3; weights of their code. Measured margins and the
    mean over positions are this project's.
    """

    alike = 'shape'  # of both sides of a pair
    streams = True

    def __init__(
        self,
        loss_weight: float = 1.0,
        map_weights: str | Sequence[float] = 'geometric',
        margins_from: Sequence[str] | None = None,
        reduction: str = 'sum',
    ):
        super().__init__(loss_weight)
        if reduction not in ('sum', 'mean'):
            raise ValueError(f"reduction is {reduction!r}: choose 'sum' or 'mean'")
        self.reduction = reduction
        check_weights('map_weights', map_weights, ('geometric',))
        self.map_weights = map_weights
        self.margins_from = margins_from
        # (C,) a map, or None where it is measured; without any, those of the attached teacher are taken.
        self.margins: Sequence[Tensor | None] | None = None
        self.measured = nn.ModuleDict()  # by the number of the map
        self._norms: tuple[nn.Module | None, ...] = ()

    def attach(self, teacher: nn.Module, taps: Sequence) -> None:
        """Find the batch norms whose affine parameters give the margins; the distiller calls this once.

        Raises:
            ValueError: ``margins_from`` has a path that does not name an affine batch norm, or not one path a tap.
        """
        modules = dict(teacher.named_modules())
        paths = [norm_before(tap, modules) for tap in taps] if self.margins_from is None else self.margins_from
        if len(paths) != len(taps):
            raise ValueError(f'margins_from names {len(paths)} batch norms for {len(taps)} taps: give one a tap')
        for path in paths:
            if self.margins_from is not None and not is_affine_norm(modules.get(path)):
                raise ValueError(
                    f'margins_from has {path!r}, which is no affine batch norm of the teacher: name the batch norm '
                    f'before each tapped ReLU, or leave margins_from out to measure the margins on the first {BATCHES} '
                    'batches'
                )
        norms = [modules.get(path) for path in paths]
        # In a tuple, or the teacher's modules would become part of this one. The margins are computed later, since the
        # teacher may not be loaded yet.
        self._norms, self.margins = tuple(norm if is_affine_norm(norm) else None for norm in norms), None
        missing = [str(tap) for tap, norm in zip(taps, self._norms) if norm is None]
        if missing:
            print_log(
                f'OFDLoss measures the margins of {", ".join(missing)} on the first {BATCHES} training batches, since '
                'no batch norm of the teacher gives these maps',
                'current',
                logging.INFO,
            )

    def check_channels(self, teacher_channels: Sequence[int]) -> None:
        for i, (norm, channels) in enumerate(zip(self._norms, teacher_channels)):
            if norm is None:
                self.measured[str(i)] = MeasuredMargin(channels)
            elif norm.num_features != channels:
                raise ValueError(
                    f"margins_from has a batch norm of {norm.num_features} channels for the teacher's map {i}, which "
                    f'has {channels}: name the batch norm before each tapped ReLU'
                )

    def warnings(self, names: Sequence[str], student_shapes: Sequence[Sequence[int]]) -> list[str]:
        return [
            f"the teacher's map for {names[int(number)]} has no negative value, so its margins are 0: tap what goes "
            'into the ReLU, which is what OFD compares'
            for number, margin in self.measured.items()
            if not margin.count.any()
        ]

    @torch.no_grad()
    def targets(self, teacher_feats: Sequence[Tensor], data_samples: Sequence | None = None) -> list[Tensor]:
        """T' of every map, in memory of its own. In training mode the first batches also move the measured margins.

        Raises:
            ValueError: There are neither ``margins`` nor an attached teacher, or not one margin a map.
        """
        if self.margins is None:
            if not self._norms:
                raise ValueError(
                    'margins is None and no teacher is attached: set margins, or call attach(teacher, taps)'
                )
            # The teacher is frozen: once is enough.
            self.margins = [None if norm is None else relu_margin(norm) for norm in self._norms]
        if len(teacher_feats) != len(self.margins):
            raise ValueError(f'{len(teacher_feats)} teacher maps and {len(self.margins)} margins: give one a map')
        margins = [
            self.measured[str(i)](as_map(feat)) if margin is None else margin
            for i, (feat, margin) in enumerate(zip(teacher_feats, self.margins))
        ]
        return [_rectified(feat, margin) for feat, margin in zip(teacher_feats, margins)]

    def compare_early(self, student_feats: list[Tensor | AffineMap | None], targets: list[Any]) -> None:
        """Put the distance of each map that is there into the place of its target; the memory of both is free then."""
        for i, student in enumerate(student_feats):
            if student is not None and not isinstance(targets[i], _Compared):
                targets[i] = self._compared(i, student, targets[i])
                student_feats[i] = outline(student)

    def compare(self, student_feats: Sequence[Tensor | AffineMap], targets: list[Any]) -> Tensor:
        """Loss of student maps, at the teacher's channels, against :meth:`targets`, which are used up.

        Raises:
            ValueError: Shapes differ, or the weights do not fit.
        """
        check_counts(student_feats, targets)
        weights = self.weights_for(len(targets))
        self.compare_early(list(student_feats), targets)
        total: Any = 0.0
        for student, compared, weight in zip(student_feats, targets, weights):
            self.left_out = self.left_out + compared.left_out
            positions = max(1, count_positions(student)) if self.reduction == 'mean' else 1
            total = total + weight * compared.distance / positions
        return self.loss_weight * total / max(len(student_feats[0]), 1)

    @staticmethod
    def _compared(index: int, student: Tensor | AffineMap, target: Tensor) -> _Compared:
        check_pair(student, target, index)
        target = target.to(torch.promote_types(student.dtype, target.dtype))
        distance, finite = partial_squared_distance(student, target)
        return _Compared(distance, (~finite).sum())

    def weights_for(self, num_maps: int) -> list[float]:
        """The weight of each map, shallow to deep."""
        named = dict(geometric=[2.0 ** (i + 1 - num_maps) for i in range(num_maps)])
        return pick_weights('map_weights', self.map_weights, num_maps, 'map', named)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, map_weights={self.map_weights!r}, reduction={self.reduction!r}'


def _rectified(feat: Tensor, margin: Tensor) -> Tensor:
    """The maximum of a teacher's map or tokens and the margins of their channels."""
    margin = margin.to(feat.device, torch.promote_types(feat.dtype, torch.float32))
    return torch.maximum(feat, margin if feat.dim() == 3 else margin.view(-1, 1, 1))
