"""The first iterations train the connectors alone."""

from __future__ import annotations

from collections.abc import Callable

from mmengine.hooks import Hook

from mmlckd.compatibility import before_steps
from mmlckd.distillers import LipschitzDistiller
from mmlckd.registry import HOOKS
from mmlckd.unwrapped import unwrapped

from .checks import RunLength, check_count, check_only_one, single_optimizer


@HOOKS.register_module()
class ConnectorWarmupHook(Hook):
    """Leave the student's weights as they are until the connectors have learned to read it.

    For the first ``iters`` iterations the optimizer sees gradients of the connectors alone. The student's weights do
    not change: no step, no momentum, no weight decay. Its batch norms go on collecting statistics. A resumed run
    continues at its iteration.

    Args:
        iters: Number of iterations, positive, and fewer than the run has.

    Raises:
        ValueError: ``iters`` is out of range; or the run has no connectors, several optimizers, or a second such hook.

    Source: OFD (Heo et al., ICCV 2019). Their code for VOC segmentation does this in its first epoch.
    """

    def __init__(self, iters: int):
        check_count('ConnectorWarmupHook.iters', iters)
        self.iters = iters
        self._stop: Callable[[], None] | None = None

    def before_train(self, runner) -> None:
        check_only_one(self, runner, 'give one, with the larger number of iterations')
        model = unwrapped(runner.model)
        if not isinstance(model, LipschitzDistiller) or not model.distiller.connectors:
            raise ValueError(
                f'ConnectorWarmupHook(iters={self.iters}) finds no connectors in a {type(model).__name__}: set '
                'connectors=True on a loss, or leave the hook out'
            )
        length = RunLength.of(runner).iterations
        if self.iters >= length:
            raise ValueError(
                f'ConnectorWarmupHook.iters is {self.iters} and the run has {length} iterations, so the student would '
                'never be trained: give fewer iterations, or leave the hook out'
            )
        optimizer = single_optimizer(self, runner)
        trained = set(model.distiller.parameters())

        def drop_others() -> None:
            for group in optimizer.param_groups:
                for parameter in group['params']:
                    if parameter not in trained:
                        parameter.grad = None

        if runner.iter < self.iters:
            # Between backward and step: the gradients are scaled, clipped and synchronised already.
            self._stop = before_steps(optimizer, drop_others)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if self._stop is not None and runner.iter + 1 >= self.iters:
            self._stop()
            self._stop = None
