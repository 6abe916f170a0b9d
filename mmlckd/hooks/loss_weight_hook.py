"""A distillation weight that changes over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from torch import nn

from mmlckd.distillers import LipschitzDistiller
from mmlckd.losses.checks import check_weight
from mmlckd.registry import HOOKS
from mmlckd.unwrapped import unwrapped

from .checks import RunLength, check_only_one


@HOOKS.register_module()
class LossWeightHook(Hook):
    """Change the weight of one distillation loss at given epochs or iterations.

    The weight is a function of the epoch (iteration) alone, so a resumed run has the same one.

    Args:
        loss: Name of the entry in the distiller's ``losses``. Each loss has one such hook at most.
        milestones: Epochs (iterations), counted from 0 and increasing. Each weight holds from its milestone on.
        weights: Loss weights, one for each milestone, finite and not negative. Before the first milestone the config's
            own holds.
        by_epoch: Count epochs, else iterations. Epochs need a run that counts epochs, too.
        ramp: Go to each weight on a straight line from the one before, and reach it at its milestone: a warm-up or a
            decay.

    Raises:
        ValueError: A list is wrong; or the model has no such loss, the run counts iterations and the hook epochs, or
            a second hook changes the same loss.

    Source: this project. LONDON's code (ICCV 2021) changes alpha at epoch 120 in two of its settings.
    """

    def __init__(
        self, loss: str, milestones: Sequence[int], weights: Sequence[float], by_epoch: bool = True, ramp: bool = False
    ):
        if not milestones or min(milestones) < 1:
            raise ValueError(f'LossWeightHook.milestones is {milestones}: give one or more whole numbers above 0')
        if any(later <= earlier for earlier, later in zip(milestones, milestones[1:])):
            raise ValueError(f'LossWeightHook.milestones is {milestones}: give increasing numbers')
        for i, weight in enumerate(weights):
            check_weight(f'LossWeightHook.weights[{i}]', weight)
        if len(milestones) != len(weights):
            raise ValueError(
                f'LossWeightHook has {len(milestones)} milestones and {len(weights)} weights: give as many of both'
            )
        self.loss = loss
        self.milestones = list(milestones)
        self.weights = list(weights)
        self.by_epoch = by_epoch
        self.ramp = ramp

    def before_train(self, runner) -> None:
        check_only_one(self, runner, 'give one with all milestones', same=('loss',))
        RunLength.of(runner).check_times(
            'LossWeightHook.milestones',
            self.milestones,
            self.by_epoch,
            remedy='set by_epoch=False and give milestones in iterations',
        )
        self._module = self._find_loss(unwrapped(runner.model))
        self._initial = float(self._module.loss_weight)

    def _find_loss(self, model: nn.Module) -> Any:
        losses = model.distiller.losses if isinstance(model, LipschitzDistiller) else nn.ModuleDict()
        weighted = {name: module for name, module in losses.items() if hasattr(module, 'loss_weight')}
        if self.loss not in weighted:
            raise ValueError(
                f'LossWeightHook.loss is {self.loss!r}: name one of the distillation losses with a loss_weight: '
                f'{", ".join(map(repr, weighted)) or "there are none"}'
            )
        return weighted[self.loss]

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
