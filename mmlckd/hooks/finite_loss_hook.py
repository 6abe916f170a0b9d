"""Losses that are not finite: named while training goes on, and its end if it cannot."""

from __future__ import annotations

import logging
import math

from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmlckd.distillers import entries_of
from mmlckd.registry import HOOKS
from mmlckd.unwrapped import unwrapped


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Warn of loss terms that are not finite, and of samples that distillation losses leave out; end a training that is lost.

    A term is named at the first iteration at which it is not finite, and again only after ``interval`` iterations. Single ones
    are no harm under a loss scaler, which skips the step; after ``patience`` iterations in a row with such a term the weights are
    beyond help and training ends. ``tools/train.py`` adds this hook.

    Args:
        interval: Iterations between two warnings of the same kind.
        patience: Iterations in a row with such a term that end training.

    Raises:
        ValueError: An argument is below 1; and while training as said.

    Source: this project.
    """

    priority = 'LOW'  # after RuntimeInfoHook, which has read the values off the device already

    def __init__(self, interval: int = 50, patience: int = 50):
        for name, value in (('interval', interval), ('patience', patience)):
            if value < 1:
                raise ValueError(f'FiniteLossHook.{name} is {value}: give at least 1 iteration')
        self.interval = interval
        self.patience = patience
        self._warned = -interval
        self._lost = 0

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        iteration = runner.iter + 1
        logged = runner.message_hub.log_scalars
        terms = {
            name: logged[f'train/{name}'].current()
            for name in outputs or ()
            if 'loss' in name and f'train/{name}' in logged
        }
        wrong = [f'{name} is {value}' for name, value in terms.items() if not math.isfinite(value)]
        if wrong and iteration - self._warned >= self.interval:
            print_log(f'at iteration {iteration} {" and ".join(wrong)}', 'current', logging.WARNING)
            self._warned = iteration
        self._lost = self._lost + 1 if wrong else 0
        if self._lost >= self.patience:
            raise ValueError(
                f'the loss has not been finite since iteration {iteration - self._lost + 1} (now {" and ".join(wrong)}): '
                'lower the learning rate or the weight of that term, and go on with --resume from a checkpoint before it'
            )
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._report_left_out(runner)

    def _report_left_out(self, runner) -> None:
        for entry in entries_of(unwrapped(runner.model)):
            count = entry.left_out
            if count:
                print_log(
                    f'losses.{entry.name} left out {count} samples, counted by pair of taps, whose maps are zero or not finite, '
                    f'up to iteration {runner.iter + 1}',
                    'current',
                    logging.WARNING,
                )
                entry.reset_left_out()
