"""A cluster's SIGTERM: a checkpoint, and an exit code that says so."""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial
from typing import Callable

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from torch import distributed

from mmlckd.registry import HOOKS

from .random_state_hook import RandomStateHook
from .safe_checkpoint_hook import SafeCheckpointHook

EXIT_CODE = 128 + signal.SIGTERM  # 143, as shells report a process that SIGTERM ended


@HOOKS.register_module()
class PreemptionHook(Hook):
    """When one rank gets SIGTERM, all write a checkpoint together and exit with code 143; ``--resume`` goes on from it.

    The checkpoint, ``preempted.pth``, is written after the running iteration; with accumulated gradients, after the
    optimizer's next step. An evaluation that follows a checkpoint is left at once, and done again after the resume; any
    other is finished first. Further signals change nothing. Before training and after it, SIGTERM does what it does to
    any process.

    Ranks agree once an iteration through a gloo group of one number, which does not wait for the GPU. Slurm sends
    SIGTERM to the workers of data loaders too; they ignore it, unless it comes from their parent.

    Raises:
        ValueError: The run has no :class:`SafeCheckpointHook` to write with.

    Source: this project.
    """

    priority = 'LOWEST'  # when all other hooks have done their part of the iteration

    def __init__(self) -> None:
        self.noticed = False
        self._group = None

    def before_train(self, runner) -> None:
        hooks = {type(hook): hook for hook in runner.hooks}
        self._random_states: RandomStateHook | None = hooks.get(RandomStateHook)
        checkpoints = hooks.get(SafeCheckpointHook)
        if checkpoints is None:
            raise ValueError(
                'PreemptionHook finds no SafeCheckpointHook to write with: set default_hooks.checkpoint.type to '
                'mmlckd.SafeCheckpointHook, or leave PreemptionHook out'
            )
        self._checkpoints: SafeCheckpointHook = checkpoints
        if get_world_size() > 1:
            self._group = distributed.new_group(backend='gloo')
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                loop.dataloader.worker_init_fn = partial(_heed_only_the_parent, loop.dataloader.worker_init_fn)
        self._previous = signal.signal(signal.SIGTERM, self._notice)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        whole_step = not isinstance(runner.optim_wrapper, OptimWrapper) or runner.optim_wrapper.should_update()
        if whole_step and self._agreed():
            self._leave(runner, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.noticed and self._checkpoints.saved_iter == runner.iter:
            _exit(runner, str(self._checkpoints.last_ckpt))

    def after_val_epoch(self, runner, metrics=None) -> None:
        if self._agreed():
            self._leave(runner, dict(epoch=runner.epoch, iter=runner.iter))

    def after_train(self, runner) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _notice(self, *_) -> None:
        self.noticed = True

    def _agreed(self) -> bool:
        """Whether any rank has been told to end; the same answer on all."""
        if self._group is None:
            return self.noticed
        noticed = torch.tensor(int(self.noticed))
        distributed.all_reduce(noticed, distributed.ReduceOp.MAX, self._group)
        return bool(noticed)

    def _leave(self, runner, meta: dict) -> None:
        if self._random_states is not None:
            self._random_states.pause()
        path = self._checkpoints.save_preempted(runner, meta)
        if self._group is not None:
            distributed.barrier(self._group)  # launchers kill all ranks when the first one ends
        _exit(runner, path)


def _exit(runner, checkpoint: str) -> None:
    runner.logger.warning(f'ended by SIGTERM; {checkpoint} is what --resume goes on from')
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Python gives the default back while it ends, which kills
    runner.visualizer.close()
    sys.exit(EXIT_CODE)


def _around_fork(then: int, child: bool = False) -> None:
    """Give SIGTERM's default back to processes that are forked while training: a metric's pool is ended by it."""
    if getattr(signal.getsignal(signal.SIGTERM), '__func__', None) is PreemptionHook._notice:
        if child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(then, {signal.SIGTERM})  # held back in between: none is lost


os.register_at_fork(
    before=partial(_around_fork, signal.SIG_BLOCK),
    after_in_parent=partial(_around_fork, signal.SIG_UNBLOCK),
    after_in_child=partial(_around_fork, signal.SIG_UNBLOCK, child=True),
)


def _heed_only_the_parent(worker_init_fn: Callable[[int], None] | None, worker_id: int) -> None:
    """In a data loader's worker: ignore SIGTERM, unless the parent sends it, which ends its workers so."""

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait, daemon=True).start()
    if worker_init_fn is not None:
        worker_init_fn(worker_id)
