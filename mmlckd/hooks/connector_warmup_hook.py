"""The first iterations train the connectors alone."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from mmlckd.distillers import LipschitzDistiller
from mmlckd.registry import HOOKS
from mmlckd.unwrapped import unwrapped


@HOOKS.register_module()
class ConnectorWarmupHook(Hook):
    """Leave the student's weights as they are until the connectors have learned to read it.

    For the first ``iters`` iterations the optimizer sees gradients of the connectors alone; the student's weights, their
    momenta and their weight decay wait. Batch norms go on collecting statistics. A resumed run continues at its iteration.

    Args:
        iters: Number of iterations, positive.

    Source: OFD (Heo et al., ICCV 2019), their code for VOC segmentation, whose first epoch does this.
    """

    def __init__(self, iters: int):
        if iters < 1:
            raise ValueError(
                f'iters is {iters}: give a positive number of iterations, or leave ConnectorWarmupHook out'
            )
        self.iters = iters
        self._handle = None

    def before_train(self, runner) -> None:
        model = unwrapped(runner.model)
        if not isinstance(model, LipschitzDistiller) or not model.distiller.connectors:
            raise ValueError(
                f'ConnectorWarmupHook(iters={self.iters}) finds no connectors in a {type(model).__name__}: set '
                'connectors=True on a loss, or leave the hook out'
            )
        if not isinstance(runner.optim_wrapper, OptimWrapper):
            raise ValueError(
                f'ConnectorWarmupHook works with one optimizer, and optim_wrapper is a {type(runner.optim_wrapper).__name__}'
            )
        trained = set(model.distiller.parameters())

        def drop_others(optimizer, args, kwargs) -> None:
            for group in optimizer.param_groups:
                for parameter in group['params']:
                    if parameter not in trained:
                        parameter.grad = None

        if runner.iter < self.iters:
            # Between backward and step: whatever scaled, clipped or synchronised the gradients has done so.
            self._handle = runner.optim_wrapper.optimizer.register_step_pre_hook(drop_others)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if self._handle is not None and runner.iter + 1 >= self.iters:
            self._handle.remove()
            self._handle = None
