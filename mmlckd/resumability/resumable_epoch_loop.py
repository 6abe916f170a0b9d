"""Epochs that can be resumed in their midst."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop

from mmlckd.registry import LOOPS


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """MMEngine's loop over epochs that resumes mid-epoch at the next batch.

    The batches before it are loaded again and left out, so that order and augmentation of the rest are what they would
    have been; MMEngine trains on them a second time. RandomStateHook keeps the place, and the random states that make
    it exact.

    Where epochs have another length than in the run that wrote the checkpoint (another number of processes, another
    batch size, other data), iterations are counted anew: the count becomes that of whole epochs of the present length.

    Source: this project.
    """

    batches_done = 0  # of the present epoch

    def resume_at(self, iteration: int, place: tuple[int, int] | None) -> None:
        """Go on at an iteration of the run before.

        Args:
            iteration: Iterations that are done, in that run's epochs.
            place: Batches that are done in the epoch that was interrupted, and its length; None: none was.
        """
        length = len(self.dataloader)
        done, former = place or (0, None)
        if former is None and iteration == self._epoch * length or former == length:
            self.batches_done = done
            return
        whole = self._epoch + (done == former)  # epochs of which all batches are done
        self.batches_done = length if done == former else 0
        self._iter = whole * length
        self.runner.optim_wrapper.initialize_count_status(self.runner.model, self._iter, self._max_iters)
        before = f'{former} iterations' if former else 'another number of iterations'
        print_log(
            f'an epoch had {before} when the checkpoint was written, and has {length} now: training goes on at the '
            f'beginning of epoch {whole + 1}, iterations are counted on from {self._iter}, not {iteration}, and '
            'schedules by iteration go on from where they were',
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
                self.runner.call_hook('before_batch')
        self.batches_done = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        self.batches_done = idx + 1  # for the checkpoint that a hook may write at the end of the iteration
        super().run_iter(idx, data_batch)
