"""Checkpoints of which a kill, a full disk or a power cut loses none."""

from bisect import bisect
from contextlib import contextmanager
from typing import Dict, Iterator, Optional

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop

from mmlckd.registry import HOOKS
from mmlckd.storage import LAST, AtomicBackend


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` that leaves a sound checkpoint at every moment, whenever the process dies.

    - A file has its name only when it is complete: :class:`AtomicBackend` writes it, where it is local and no other backend is asked for.
    - What ``max_keep_ckpts`` and ``save_best`` make outdated is removed after its successor is written; MMEngine removes it before.
    - An evaluation that follows a checkpoint and was cut off is done when the run is resumed; MMEngine goes on without it, and without
      the best checkpoint or the step of a scheduler that it would have brought.

    Args:
        kwargs: Those of MMEngine's hook.

    Source: this project.
    """

    EVALUATED = 'evaluated'  # epoch (iteration) of the last evaluation, kept in the message hub and so in checkpoints
    PREEMPTED = 'preempted.pth'

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.saved_iter: Optional[int] = None

    def before_train(self, runner) -> None:
        if self.backend_args is None and self.file_client_args is None and '://' not in str(self.out_dir):
            self.backend_args = dict(backend='mmlckd.atomic')
        super().before_train(runner)
        if runner.iter > 0 and _evaluation_is_due(runner) and runner.message_hub.runtime_info.get(self.EVALUATED) != _time(runner):
            runner.val_loop.run()

    def after_val_epoch(self, runner, metrics: Optional[Dict[str, float]] = None) -> None:
        runner.message_hub.update_info(self.EVALUATED, _time(runner))
        super().after_val_epoch(runner, metrics)

    def save_preempted(self, runner, meta: dict) -> str:
        """Write what ``--resume`` goes on from, between two checkpoints of the schedule."""
        path = self.file_backend.join_path(self.out_dir, self.PREEMPTED)
        runner.save_checkpoint(self.out_dir, self.PREEMPTED, self.file_client_args, meta=meta, backend_args=self.backend_args)
        if is_main_process():
            AtomicBackend().put_text(str(path), f'{runner.work_dir}/{LAST}')
        return path

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        with self._removing_last():
            super()._save_checkpoint_with_step(runner, step, meta)
        self.saved_iter = meta['iter']
        preempted = self.file_backend.join_path(self.out_dir, self.PREEMPTED)
        if is_main_process() and self.file_backend.isfile(preempted):
            self.file_backend.remove(preempted)

    def _save_best_checkpoint(self, runner, metrics: Dict[str, float]) -> None:
        with self._removing_last():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_last(self) -> Iterator[None]:
        """Put off what is removed within until it has ended well."""
        remove, outdated = self.file_backend.remove, []
        self.file_backend.remove = outdated.append
        try:
            yield
        finally:
            self.file_backend.remove = remove
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        for path in set(outdated) - {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}:
            remove(path)


def _time(runner) -> int:
    """What the loop counts evaluations by: epochs or iterations."""
    return runner.epoch if isinstance(runner.train_loop, EpochBasedTrainLoop) else runner.iter


def _evaluation_is_due(runner) -> bool:
    loop, time = runner.train_loop, _time(runner)
    if runner.val_loop is None or time < loop.val_begin:
        return False
    interval = loop.dynamic_intervals[bisect(loop.dynamic_milestones, time + 1) - 1]
    return time % interval == 0 or time == (loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters)
