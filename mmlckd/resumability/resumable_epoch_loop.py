"""Epochs that can be resumed in their midst."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop

from mmlckd.registry import LOOPS


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """MMEngine's loop over epochs that goes on from a checkpoint written within one at the batch where it was.

    The batches behind it are loaded again and left out, so that order and augmentation of the rest are what they would have been;
    MMEngine trains on them a second time. RandomStateHook keeps the place, and the random states that make it exact.

    Source: this project.
    """

    batches_done = 0  # of the present epoch

    def resume_within(self, batches_done: int, length: int) -> None:
        """Leave out so many batches of the first epoch to be run, which had that length when the checkpoint was written."""
        if length == len(self.dataloader):
            self.batches_done = batches_done
        else:
            print_log(
                f'an epoch had {length} iterations when the checkpoint was written within one, and has {len(self.dataloader)} now: '
                'that epoch is begun anew',
                'current',
                logging.WARNING,
            )

    def run_epoch(self) -> None:
        behind = self.batches_done
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for idx, data_batch in enumerate(self.dataloader):
            if idx >= behind:
                self.run_iter(idx, data_batch)
            elif idx == behind - 1:
                self.runner.call_hook('after_batches_left_out')
        self.batches_done = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        self.batches_done = idx + 1  # for the checkpoint that a hook may write at the end of the iteration
        super().run_iter(idx, data_batch)
