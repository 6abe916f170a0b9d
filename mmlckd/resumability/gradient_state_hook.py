"""Gradients that are being accumulated, in checkpoints."""

from __future__ import annotations

import logging

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmlckd.registry import HOOKS
from mmlckd.unwrapped import unwrapped

from .due import checkpoint_is_due


@HOOKS.register_module()
class GradientStateHook(Hook):
    """Save the gradients of all ranks with a checkpoint between two optimizer steps, and resume with them.

    A checkpoint falls between two steps where ``accumulative_counts`` does not divide the iterations between two
    checkpoints. MMEngine loses those gradients. Each rank has its own, since DDP sums them up only at the step.

    Source: this project.
    """

    priority = 'LOW'  # before CheckpointHook
    NAME = 'accumulated_gradients'

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] | None = None  # one table for each rank

    def before_train(self, runner) -> None:
        if self.gradients is None or runner.iter == 0:
            return
        if len(self.gradients) != get_world_size():
            print_log(
                f'the checkpoint has the accumulated gradients of {len(self.gradients)} processes, '
                f'and {get_world_size()} run now: those of one step are lost',
                'current',
                logging.WARNING,
            )
            return
        parameters = dict(unwrapped(runner.model).named_parameters())
        for name, gradient in self.gradients[get_rank()].items():
            if name not in parameters or parameters[name].shape != gradient.shape:
                raise ValueError(
                    f'the checkpoint has an accumulated gradient of {name!r}, {tuple(gradient.shape)}, '
                    'that belongs to no weight: resume from another'
                )
            parameters[name].grad = gradient.to(parameters[name].device)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        self.gradients = None

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if checkpoint_is_due(runner, by_epoch=False):
            self._take(runner)

    def after_train_epoch(self, runner) -> None:
        if checkpoint_is_due(runner, by_epoch=True):
            self._take(runner)

    def before_val(self, runner) -> None:
        """After an evaluation a checkpoint may be written off the schedule: of a new best result, or at a SIGTERM."""
        if self.gradients is None:
            self._take(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self.gradients is not None:
            checkpoint[self.NAME] = self.gradients

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self.gradients = checkpoint.get(self.NAME)

    def _take(self, runner) -> None:
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapper) and not wrapper.should_update():
            self.gradients = all_gather_object(_gradients(unwrapped(runner.model)))


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    named = model.named_parameters()
    return {name: parameter.grad.cpu() for name, parameter in named if parameter.grad is not None}
