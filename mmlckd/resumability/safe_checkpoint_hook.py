"""Checkpoints of which a kill, a full disk or a power cut loses none."""

from __future__ import annotations

from bisect import bisect
from functools import partial
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop

from mmlckd.checkpoints import LAST, AtomicBackend
from mmlckd.registry import HOOKS


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` that leaves a sound checkpoint at every moment, whenever the process dies.

    - A file has its name only when it is complete: :class:`.AtomicBackend` writes it, where it is local and no other backend is asked for.
    - What ``max_keep_ckpts`` and ``save_best`` make outdated is removed after its successor is written; MMEngine removes it before.
    - An evaluation that follows a checkpoint and was cut off is done when the run is resumed; MMEngine goes on without it, and without
      the best checkpoint or the step of a scheduler that it would have brought.

    Args:
        kwargs: Those of MMEngine's hook.

    Source: this project.
    """

    # Kept in the message hub, and so in checkpoints:
    EVALUATED = 'evaluated'  # the epoch (iteration) of the last evaluation
    OUTDATED = 'outdated'  # files that the checkpoint takes the place of, removed after it is written, or when it is resumed from
    PREEMPTED = 'preempted.pth'

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.saved_iter: int | None = None

    def before_train(self, runner) -> None:
        if self.backend_args is None and self.file_client_args is None and '://' not in str(self.out_dir):
            self.backend_args = dict(backend='mmlckd.atomic')
        super().before_train(runner)
        self._remove, self.file_backend.remove = self.file_backend.remove, partial(self._put_off, runner)
        self._remove_outdated(runner)
        if (
            runner.iter > 0
            and _evaluation_is_due(runner)
            and runner.message_hub.runtime_info.get(self.EVALUATED) != _time(runner)
        ):
            runner.val_loop.run()

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        runner.message_hub.update_info(self.EVALUATED, _time(runner))
        super().after_val_epoch(runner, metrics)

    def save_preempted(self, runner, meta: dict) -> str:
        """Write what ``--resume`` goes on from, between two checkpoints of the schedule."""
        path = self.file_backend.join_path(self.out_dir, self.PREEMPTED)
        runner.save_checkpoint(
            self.out_dir, self.PREEMPTED, self.file_client_args, meta=meta, backend_args=self.backend_args
        )
        if is_main_process():
            AtomicBackend().put_text(str(path), f'{runner.work_dir}/{LAST}')
        return path

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self.saved_iter = meta['iter']
        self._remove_outdated(runner, self.PREEMPTED)

    def _put_off(self, runner, path: str) -> None:
        runner.message_hub.update_info(
            self.OUTDATED, [*runner.message_hub.runtime_info.get(self.OUTDATED, ()), Path(path).name]
        )

    def _remove_outdated(self, runner, *names: str) -> None:
        info = runner.message_hub.runtime_info
        kept = {Path(path).name for key, path in info.items() if path and key.startswith(('last_ckpt', 'best_ckpt'))}
        for name in (*info.get(self.OUTDATED, ()), *names) if is_main_process() else ():
            path = self.file_backend.join_path(self.out_dir, name)
            if name not in kept and self.file_backend.isfile(path):
                self._remove(path)
        runner.message_hub.update_info(self.OUTDATED, [])


def _time(runner) -> int:
    """What the loop counts evaluations by: epochs or iterations."""
    return runner.epoch if isinstance(runner.train_loop, EpochBasedTrainLoop) else runner.iter


def _evaluation_is_due(runner) -> bool:
    loop, time = runner.train_loop, _time(runner)
    if runner.val_loop is None or time < loop.val_begin:
        return False
    interval = loop.dynamic_intervals[bisect(loop.dynamic_milestones, time + 1) - 1]
    return time % interval == 0 or time == (
        loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    )
