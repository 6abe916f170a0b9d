"""Random states in checkpoints: a resumed run goes on as one that was never interrupted."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader

from mmlckd.registry import HOOKS

from .due import checkpoint_is_due
from .random_states import random_state, set_random_state
from .resumable_epoch_loop import ResumableEpochLoop


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Save the random states of all ranks and the place within the epoch, and resume with them.

    The states are taken where training pauses (the end of an epoch, the iteration of a checkpoint, an evaluation) and
    put back where it goes on, in the uninterrupted run as well: what validation and logging draw in between changes
    nothing.

    Resuming is exact with the same number of processes, and with workers that are not persistent, which keep generators
    of their own:

    - at epoch checkpoints, and within an epoch of :class:`ResumableEpochLoop`;
    - in iteration loops of :class:`ResumableIterLoop` with any augmentation in the main process; if workers load the
      data, only where they draw no random numbers. A warning says so when such a run is resumed.

    Source: this project.
    """

    priority = 'LOW'  # before CheckpointHook

    def __init__(self) -> None:
        self.seed: int | None = None  # that the run began with, before it was resumed
        self.states: list | None = None  # one for each rank, of the last pause
        self.epoch_states: list | None = (
            None  # of the beginning of the epoch: they order its batches and seed its workers
        )
        self.pending = False  # to be put back when training goes on
        self.place: tuple[int, int] | None = None  # batches done in the epoch that is resumed, and its length

    def before_run(self, runner) -> None:
        self.seed = runner.seed

    def before_train(self, runner) -> None:
        loop = runner.train_loop
        if self.seed not in (None, runner.seed):  # MMEngine takes that of the checkpoint, after the loaders are built
            for each in (loop, runner.val_loop):
                if each is not None:
                    _reseed(each.dataloader, self.seed, runner.seed)
        if runner.iter == 0:  # a checkpoint that was loaded, and is not resumed
            self.pending = False
        elif isinstance(loop, ResumableEpochLoop):
            loop.resume_at(runner.iter, self.place)
        elif isinstance(loop, IterBasedTrainLoop) and loop.dataloader.num_workers > 0:
            print_log(
                'random augmentation in data-loading workers begins anew in a resumed iteration loop: '
                'the run will not end with the bits of an uninterrupted one',
                'current',
                logging.WARNING,
            )

    def before_train_epoch(self, runner) -> None:
        within = getattr(runner.train_loop, 'batches_done', 0) > 0
        in_iterations = isinstance(runner.train_loop, IterBasedTrainLoop)
        resumed = self.pending and in_iterations and self.epoch_states is not None
        self.pause()
        if not (within or resumed) or self.epoch_states is None:
            self.epoch_states = self.states
        assert self.epoch_states is not None  # pause() took them
        set_random_state(self.epoch_states[get_rank()])
        # Once more where leaving batches out, or making an iteration loop's loader, draws numbers in between.
        self.pending = within or runner.iter > 0 and in_iterations

    def before_batch(self, runner) -> None:
        """Called by this package's loops before they fetch a batch."""
        self._put_back()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        self._put_back()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if checkpoint_is_due(runner, by_epoch=False):
            self.pause()
            self.pending = isinstance(runner.train_loop, IterBasedTrainLoop)  # whose validation may follow

    def before_val(self, runner) -> None:
        if self.epoch_states is not None and isinstance(runner.train_loop, IterBasedTrainLoop):
            self.pause()

    def after_train_epoch(self, runner) -> None:
        self.pause()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self.states is None:
            return
        checkpoint['random_states'] = self.states
        done = getattr(runner.train_loop, 'batches_done', 0)
        if done:
            checkpoint['place_in_epoch'] = (done, len(runner.train_dataloader))
        if done or isinstance(runner.train_loop, IterBasedTrainLoop):
            checkpoint['epoch_random_states'] = self.epoch_states

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self.place = checkpoint.get('place_in_epoch')
        states = checkpoint.get('random_states')
        if states is not None and len(states) != get_world_size():
            print_log(
                f'the checkpoint was written by {len(states)} processes, and {get_world_size()} run now: '
                'training goes on with other random numbers',
                'current',
                logging.WARNING,
            )
            states = None
        self.states, self.pending = states, states is not None
        if self.pending:
            self.epoch_states = checkpoint.get('epoch_random_states')

    def pause(self) -> None:
        """Take the states of all ranks, unless they wait to be put back already."""
        if not self.pending:
            self.states, self.pending = all_gather_object(random_state()), True

    def _put_back(self) -> None:
        if self.pending and self.states is not None:
            set_random_state(self.states[get_rank()])
        self.pending = False


def _reseed(loader: DataLoader, former: int, seed: int) -> None:
    """Give the samplers and workers of a loader another seed, where they have the former one."""
    samplers: list[Any] = [loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, 'sampler', None)]
    for sampler in samplers:
        if getattr(sampler, 'seed', None) == former:
            sampler.seed = seed
    init = loader.worker_init_fn
    if isinstance(init, partial) and init.keywords.get('seed') == former:
        loader.worker_init_fn = partial(init.func, *init.args, **{**init.keywords, 'seed': seed})
