"""Losses that are not finite: a warning while training can go on, and an end where it cannot."""

from __future__ import annotations

import logging
import math

from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmlckd.distillers import entries_of
from mmlckd.registry import HOOKS
from mmlckd.unwrapped import unwrapped

from .checks import check_count, check_only_one


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Warn of losses that are not finite and of samples that distillation losses leave out; end a lost training.

    A loss is named at the first iteration at which it is not finite, and again after ``interval`` iterations at the
    earliest. Under a loss scaler single ones do no harm, because the scaler skips the step. After ``patience``
    iterations in a row the weights are beyond help, and training ends. ``tools/train.py`` adds this hook.

    Args:
        interval: Iterations between two warnings of the same kind.
        patience: Iterations in a row with such a loss after which training ends.

    Raises:
        ValueError: An argument is below 1, or the run has a second such hook; while training, as said above.

    Source: this project.
    """

    priority = 'LOW'  # after RuntimeInfoHook, which has read the values off the device already

    def __init__(self, interval: int = 50, patience: int = 50):
        check_count('FiniteLossHook.interval', interval)
        check_count('FiniteLossHook.patience', patience)
        self.interval = interval
        self.patience = patience
        self._warned = -interval
        self._lost = 0

    def before_train(self, runner) -> None:
        check_only_one(self, runner, 'set its options in default_hooks.finite_loss, and leave the other out')

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        iteration = runner.iter + 1
        wrong = ' and '.join(f'{name} is {value}' for name, value in _not_finite(runner, outputs or {}).items())
        if wrong and iteration - self._warned >= self.interval:
            print_log(f'at iteration {iteration} {wrong}', 'current', logging.WARNING)
            self._warned = iteration
        self._lost = self._lost + 1 if wrong else 0
        if self._lost >= self.patience:
            raise ValueError(
                f'the loss has not been finite since iteration {iteration - self._lost + 1} (now {wrong}): '
                'lower the learning rate or the weight of that term, and begin a training with load_from, from an '
                'earlier checkpoint'
            )
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._report_left_out(runner)

    def _report_left_out(self, runner) -> None:
        for entry in entries_of(unwrapped(runner.model)):
            count = entry.left_out
            if count:
                print_log(
                    f'up to iteration {runner.iter + 1} losses.{entry.name} left out {count} samples, counted by pair '
                    'of taps: it is undefined for them, for example because a map is zero or not finite, or a label '
                    'is no class',
                    'current',
                    logging.WARNING,
                )
                entry.reset_left_out()


def _not_finite(runner, outputs: dict) -> dict[str, float]:
    """The losses of this iteration that are not finite, by name."""
    logged = runner.message_hub.log_scalars
    found = {}
    for name in outputs:
        if 'loss' in name and f'train/{name}' in logged:
            value = logged[f'train/{name}'].current()
            if not math.isfinite(value):
                found[name] = value
    return found
