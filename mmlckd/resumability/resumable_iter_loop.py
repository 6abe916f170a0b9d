"""A loop over iterations that can be resumed with augmentation in the main process."""

from __future__ import annotations

from mmengine.runner import IterBasedTrainLoop

from mmlckd.registry import LOOPS


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """MMEngine's loop over iterations that says to hooks, by ``before_batch``, when it is about to fetch a batch.

    RandomStateHook puts the random states back at that moment, so the first batch after a resume is augmented as it
    would have been. MMEngine's own loop fetches it before any hook is called.

    Source: this project, after MMEngine's ``IterBasedTrainLoop.run``.
    """

    def run(self):
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        if self._iter > 0 and not getattr(self, 'fast_forward_on_resume', False):
            self._leave_out(self._iter)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.runner.call_hook('before_batch')
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
            if self.runner.val_loop is not None and self._iter >= self.val_begin and due:
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _leave_out(self, count: int) -> None:
        """Pass over the batches that were trained on, in the quickest way that this MMEngine has."""
        self.runner.logger.info(f'passing over {count} batches that were trained on')
        skip = getattr(self.dataloader_iterator, 'skip_iter', None)
        if skip is not None:
            skip(count)
        else:
            for _ in range(count):
                next(self.dataloader_iterator)
        # OneDL's MMEngine makes the loader's iterator at the first batch. That draws a random number, so it has to be
        # made before the random states are put back.
        make_iterator = getattr(self.dataloader_iterator, '_ensure_iterator', None)
        if make_iterator is not None:
            make_iterator()
