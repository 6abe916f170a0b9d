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
EVALUATED_ALONE = 10  # iterations of an evaluation after which ranks agree whether to go on


@HOOKS.register_module()
class PreemptionHook(Hook):
    """When one rank gets SIGTERM, all write a checkpoint together and exit with code 143; ``--resume`` goes on from it.

    The checkpoint, ``preempted.pth``, is written after the running iteration; with accumulated gradients, after the
    optimizer's next step. An evaluation that follows a checkpoint is left, and done again after the resume. Any other
    is finished first. Further signals change nothing. Before training and after it, SIGTERM does what it does to any
    process.

    Ranks agree through a gloo group of one number, which does not wait for the GPU: once an iteration of training, and
    every ten iterations of an evaluation, where they would otherwise not wait for each other. A single process leaves
    an evaluation at once. Slurm sends SIGTERM to the workers of data loaders too; they ignore it, unless it comes from
    their parent.

    Raises:
        ValueError: The run has no :class:`SafeCheckpointHook` to write with.

    Source: this project.
    """

    priority = 'LOWEST'  # when all other hooks have done their part of the iteration

    def __init__(self) -> None:
        self.noticed = False
        self._group = None
        self._checkpoints: SafeCheckpointHook | None = None
        self._shared_iters = 0  # of an evaluation: as many as the rank with the smallest share has

    def before_train(self, runner) -> None:
        hooks = {type(hook): hook for hook in runner.hooks}
        self._random_states: RandomStateHook | None = hooks.get(RandomStateHook)
        checkpoints = hooks.get(SafeCheckpointHook)
        if checkpoints is None:
            raise ValueError(
                'PreemptionHook finds no SafeCheckpointHook to write with: set default_hooks.checkpoint.type to '
                'mmlckd.SafeCheckpointHook, or leave PreemptionHook out'
            )
        self._checkpoints = checkpoints
        if get_world_size() > 1:
            self._group = distributed.new_group(backend='gloo')
            length = 0 if runner.val_loop is None else len(runner.val_loop.dataloader)
            self._shared_iters = self._over_ranks(length, distributed.ReduceOp.MIN)
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                loop.dataloader.worker_init_fn = partial(_heed_only_the_parent, loop.dataloader.worker_init_fn)
        self._previous = signal.signal(signal.SIGTERM, self._notice)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        whole_step = not isinstance(runner.optim_wrapper, OptimWrapper) or runner.optim_wrapper.should_update()
        if whole_step and self._agreed():
            self._leave(runner, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Leave, unless an iteration of training has no checkpoint yet."""
        if self._checkpoints is None or self._checkpoints.saved_iter != runner.iter:
            return
        together = batch_idx < self._shared_iters and (batch_idx + 1) % EVALUATED_ALONE == 0
        if (self._group is None or together) and self._agreed():
            self._exit(runner, str(self._checkpoints.last_ckpt))

    def after_val_epoch(self, runner, metrics=None) -> None:
        over = runner.iter >= runner.max_iters  # nothing is left to be resumed
        if not over and self._agreed():
            self._leave(runner, dict(epoch=runner.epoch, iter=runner.iter))

    def after_train(self, runner) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _notice(self, *_) -> None:
        self.noticed = True

    def _agreed(self) -> bool:
        """Whether any rank has been told to end; the same answer on all."""
        return bool(self._over_ranks(int(self.noticed), distributed.ReduceOp.MAX))

    def _over_ranks(self, number: int, which: distributed.ReduceOp.RedOpType) -> int:
        if self._group is None:
            return number
        result = torch.tensor(number)
        distributed.all_reduce(result, which, self._group)
        return int(result)

    def _leave(self, runner, meta: dict) -> None:
        assert self._checkpoints is not None
        if self._random_states is not None:
            self._random_states.pause()
        self._exit(runner, self._checkpoints.save_preempted(runner, meta))

    def _exit(self, runner, checkpoint: str) -> None:
        if self._group is not None:
            distributed.barrier(self._group)  # launchers kill all ranks when the first one ends
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
