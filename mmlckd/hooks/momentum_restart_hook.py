"""Momentum that starts anew at given epochs."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import Hook

from mmlckd.registry import HOOKS

from .checks import RunLength, check_only_one, single_optimizer


@HOOKS.register_module()
class MomentumRestartHook(Hook):
    """Forget the optimizer's running averages at the beginning of some epochs, as a new optimizer would.

    Args:
        epochs: Epochs, counted from 0. The run must count epochs, too.

    Raises:
        ValueError: There is no epoch, or one is negative; or the run counts iterations, has several optimizers, or a
            second such hook.

    Source: the CIFAR-100 code of LONDON (ICCV 2021) and OFD (ICCV 2019), which makes a new SGD whenever the learning
    rate drops.
    """

    def __init__(self, epochs: Sequence[int]):
        if not epochs or min(epochs) < 0:
            raise ValueError(f'MomentumRestartHook.epochs is {epochs}: give one or more epochs, counted from 0')
        self.epochs = set(epochs)

    def before_train(self, runner) -> None:
        check_only_one(self, runner, 'give one with all epochs')
        RunLength.of(runner).check_times(
            'MomentumRestartHook.epochs',
            sorted(self.epochs),
            by_epoch=True,
            remedy='train by epochs (train_cfg.by_epoch=True, train_cfg.max_epochs), or leave the hook out',
        )
        self._optimizer = single_optimizer(self, runner)

    def before_train_epoch(self, runner) -> None:
        # A run that resumes within an epoch has that epoch's averages already.
        resumed_within = getattr(runner.train_loop, 'batches_done', 0) > 0
        if runner.epoch in self.epochs and not resumed_within:
            self._optimizer.state.clear()
