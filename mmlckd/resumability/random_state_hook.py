"""Random states in checkpoints: a resumed run goes on as the one never interrupted would have."""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop

from mmlckd.registry import HOOKS

from .resumable_epoch_loop import ResumableEpochLoop


def random_state() -> dict[str, Any]:
    """State of every generator of this process: Python, numpy, torch, and its GPU if it has one."""
    state = dict(python=random.getstate(), numpy=np.random.get_state(), torch=torch.get_rng_state())
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what :func:`random_state` took."""
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Save the random states of all ranks, and the place within an epoch, with each checkpoint, and start from them after a resume.

    The states are taken where training pauses (the end of an epoch, or the iteration of a checkpoint) and put back
    where it goes on, in the uninterrupted run as well: what validation and logging draw in between changes nothing.

    Resuming is exact with the same number of processes and workers that are not persistent (those keep generators of their own): at
    epoch checkpoints, and within an epoch of :class:`ResumableEpochLoop`. In iteration loops it is exact where the data pipeline draws no
    random numbers in workers, nor torch's in the main process.

    Source: this project.
    """

    priority = 'LOW'  # before CheckpointHook

    def __init__(self) -> None:
        self.states: list | None = None  # one a rank, of the last pause
        self.epoch_states: list | None = (
            None  # of the beginning of the epoch, which order its batches and seed its workers
        )
        self.pending = False  # to be put back when training goes on
        self.place: tuple[int, int] | None = None  # batches done in the epoch that is resumed, and its length

    def before_train(self, runner) -> None:
        if runner.iter == 0:  # a checkpoint that was loaded, and is not resumed
            self.pending = False
        elif self.place is not None and isinstance(runner.train_loop, ResumableEpochLoop):
            runner.train_loop.resume_within(*self.place)

    def before_train_epoch(self, runner) -> None:
        within = getattr(runner.train_loop, 'batches_done', 0) > 0
        self.pause()
        if not within:
            self.epoch_states = self.states
        set_random_state(self.epoch_states[get_rank()])
        # Once more where batches that are left out, or the making of an iteration loop's loader, draw numbers in between.
        self.pending = within or runner.iter > 0 and isinstance(runner.train_loop, IterBasedTrainLoop)

    def after_batches_left_out(self, runner) -> None:
        self._put_back()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        self._put_back()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if any(
            isinstance(hook, CheckpointHook)
            and not hook.by_epoch
            and (self.every_n_train_iters(runner, hook.interval) or self.is_last_train_iter(runner))
            for hook in runner.hooks
        ):
            self.pause()
            self.pending = isinstance(runner.train_loop, IterBasedTrainLoop)  # whose validation may follow

    def after_train_epoch(self, runner) -> None:
        self.pause()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self.states is None:
            return
        checkpoint['random_states'] = self.states
        done = getattr(runner.train_loop, 'batches_done', 0)
        if done:
            checkpoint.update(
                epoch_random_states=self.epoch_states, place_in_epoch=(done, len(runner.train_dataloader))
            )

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        states = checkpoint.get('random_states')
        if states is not None and len(states) != get_world_size():
            print_log(
                f'the checkpoint holds the random states of {len(states)} processes and {get_world_size()} run now: '
                'training goes on from fresh ones',
                'current',
                logging.WARNING,
            )
            states = None
        self.states, self.pending = states, states is not None
        if self.pending:
            self.epoch_states, self.place = checkpoint.get('epoch_random_states'), checkpoint.get('place_in_epoch')

    def pause(self) -> None:
        """Take the states of all ranks, unless they wait to be put back already."""
        if not self.pending:
            self.states, self.pending = all_gather_object(random_state()), True

    def _put_back(self) -> None:
        if self.pending:
            set_random_state(self.states[get_rank()])
        self.pending = False
