"""A distillation weight that changes over training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.hooks import Hook

from mmlckd.distillers import LipschitzDistiller
from mmlckd.registry import HOOKS
from mmlckd.unwrapped import unwrapped


@HOOKS.register_module()
class LossWeightHook(Hook):
    """Change the weight of one distillation loss at given epochs or iterations.

    The weight is a function of the epoch (iteration) alone, so a resumed run has the same one.

    Args:
        loss: Name of the entry in the distiller's ``losses``.
        milestones: Epochs (iterations), counted from 0 and increasing, from which on the weights hold.
        weights: Loss weights, one a milestone; before the first milestone the config's own holds.
        by_epoch: Count epochs, else iterations.
        ramp: Go to each weight on a straight line from the one before, reaching it at its milestone: a warm-up or a decay.

    Raises:
        ValueError: The model has no such loss, or the lists do not fit.

    Source: this project; LONDON's code (ICCV 2021) changes alpha at epoch 120 in two of its settings.
    """

    def __init__(
        self, loss: str, milestones: Sequence[int], weights: Sequence[float], by_epoch: bool = True, ramp: bool = False
    ):
        if len(milestones) != len(weights) or not milestones:
            raise ValueError(
                f'LossWeightHook has {len(milestones)} milestones and {len(weights)} weights: give as many of both, '
                'at least one'
            )
        if any(later <= earlier for earlier, later in zip([0, *milestones], milestones)):
            raise ValueError(f'LossWeightHook.milestones is {list(milestones)}: give increasing numbers above 0')
        if min(weights) < 0:
            raise ValueError(f'LossWeightHook.weights is {list(weights)}: a loss weight must not be negative')
        self.loss = loss
        self.milestones = list(milestones)
        self.weights = list(weights)
        self.by_epoch = by_epoch
        self.ramp = ramp

    def before_train(self, runner) -> None:
        model = unwrapped(runner.model)
        losses = model.distiller.losses if isinstance(model, LipschitzDistiller) else {}
        if self.loss not in losses or not hasattr(losses[self.loss], 'loss_weight'):
            raise ValueError(
                f'LossWeightHook.loss is {self.loss!r}: name one of the distillation losses with a loss_weight, '
                f'of which there are {", ".join(map(repr, losses)) or "none"}'
            )
        self._module = losses[self.loss]
        self._initial = self._module.loss_weight

    def weight_at(self, time: int) -> float:
        """The weight in that epoch (iteration)."""
        times, weights = [0, *self.milestones], [self._initial, *self.weights]
        if self.ramp:
            return float(np.interp(time, times, weights))
        return weights[np.searchsorted(times, time, side='right') - 1]

    def before_train_epoch(self, runner) -> None:
        if self.by_epoch:
            self._module.loss_weight = self.weight_at(runner.epoch)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if not self.by_epoch:
            self._module.loss_weight = self.weight_at(runner.iter)
