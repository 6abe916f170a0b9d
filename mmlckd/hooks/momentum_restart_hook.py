"""Momentum that starts anew at given epochs."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from mmlckd.registry import HOOKS


@HOOKS.register_module()
class MomentumRestartHook(Hook):
    """Forget the optimizer's running averages at the beginning of some epochs, as a newly made optimizer would.

    Args:
        epochs: Epochs, counted from 0.

    Raises:
        ValueError: An epoch is negative, or there are several optimizers.

    Source: the CIFAR-100 code of LONDON (ICCV 2021) and OFD (ICCV 2019), which makes a new SGD at each drop of the learning rate.
    """

    def __init__(self, epochs: Sequence[int]):
        if not epochs or min(epochs) < 0:
            raise ValueError(f'MomentumRestartHook.epochs is {list(epochs)}: give epochs from 0 on')
        self.epochs = set(epochs)

    def before_train(self, runner) -> None:
        if not isinstance(runner.optim_wrapper, OptimWrapper):
            raise ValueError(
                f'MomentumRestartHook works with one optimizer, and optim_wrapper is a {type(runner.optim_wrapper).__name__}'
            )

    def before_train_epoch(self, runner) -> None:
        begun = (
            getattr(runner.train_loop, 'batches_done', 0) > 0
        )  # resumed within that epoch, whose own averages these are
        if runner.epoch in self.epochs and not begun:
            runner.optim_wrapper.optimizer.state.clear()
