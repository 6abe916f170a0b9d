"""Checkpoints of which a kill, a full disk, a power cut or a diverging run loses none."""

from __future__ import annotations

import logging
import re
from bisect import bisect
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop

from mmlckd.checkpoints import LAST, AtomicBackend, lock_folder, remove_leftovers, unlock_folders
from mmlckd.registry import HOOKS
from mmlckd.unwrapped import unwrapped

from .optimizer_state import without_functions
from .plain_values import is_count, is_list_of


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` that leaves a sound checkpoint at every moment, whenever the process dies.

    - A file has its name only when it is complete: :class:`.AtomicBackend` writes it, if it is local and no other
      backend is asked for.
    - What ``max_keep_ckpts`` and ``save_best`` make outdated is removed after its successor is written; MMEngine
      removes it before.
    - While losses or weights are not finite, no checkpoint with finite weights is removed.
    - An evaluation that follows a checkpoint and was cut off is done when the run is resumed; MMEngine goes on without
      it, and without the best checkpoint or the step of a scheduler that it would have brought.

    A resumed run takes names of files from the checkpoint. It removes only files of its own folder that are named as
    this hook names them.

    Args:
        kwargs: Those of MMEngine's hook.

    Raises:
        ValueError: Names or numbers of checkpoints in the file that is resumed from are of a wrong kind.

    Source: this project.
    """

    # Kept in the message hub, and so in checkpoints:
    EVALUATED = 'evaluated'  # the epoch (iteration) of the last evaluation
    OUTDATED = 'outdated'  # files to be removed once the next checkpoint is written, or when this one is resumed from
    UNSOUND = 'unsound'  # files whose weights are not finite
    PREEMPTED = 'preempted.pth'

    backend_args: dict | None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.saved_iter: int | None = None
        self._judged_iter = 0  # the losses up to here were looked at,
        self._losses_were_finite = True  # and found to be so

    def before_train(self, runner) -> None:
        if self.backend_args is None and self.file_client_args is None and '://' not in str(self.out_dir):
            self.backend_args = dict(backend='mmlckd.atomic')
        self._take_over(runner)
        super().before_train(runner)
        self._remove = self.file_backend.remove
        self.file_backend.remove = self.file_backend.rmtree = lambda path: self._put_off(runner, Path(path).name)
        self._relocate(runner)
        if is_main_process() and isinstance(self.file_backend, AtomicBackend):
            remove_leftovers(self.out_dir, alone=lock_folder(self.out_dir))
        self._judged_iter = runner.iter
        self._remove_outdated(runner, sound_too=_weights_are_finite(runner))
        evaluated = runner.message_hub.runtime_info.get(self.EVALUATED)
        if runner.iter > 0 and _evaluation_is_due(runner) and evaluated != _time(runner):
            runner.val_loop.run()

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        runner.message_hub.update_info(self.EVALUATED, _time(runner))
        super().after_val_epoch(runner, metrics)

    def after_run(self, runner) -> None:
        unlock_folders()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if 'param_schedulers' in checkpoint:
            checkpoint['param_schedulers'] = without_functions(checkpoint['param_schedulers'])

    def save_preempted(self, runner, meta: dict) -> str:
        """Write what ``--resume`` goes on from, between two checkpoints of the schedule."""
        path = self.file_backend.join_path(self.out_dir, self.PREEMPTED)
        info = runner.message_hub.runtime_info
        outdated = [name for name in info.get(self.OUTDATED, ()) if name != self.PREEMPTED]  # it is the newest now
        runner.message_hub.update_info(self.OUTDATED, outdated)
        runner.save_checkpoint(
            self.out_dir, self.PREEMPTED, self.file_client_args, meta=meta, backend_args=self.backend_args
        )
        if is_main_process():
            AtomicBackend().put_text(str(path), f'{runner.work_dir}/{LAST}')
        return path

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        name = self.filename_tmpl.format(step)
        weights_are_finite = _weights_are_finite(runner)
        unsound = [other for other in runner.message_hub.runtime_info.get(self.UNSOUND, ()) if other != name]
        runner.message_hub.update_info(self.UNSOUND, unsound if weights_are_finite else [*unsound, name])
        super()._save_checkpoint_with_step(runner, step, meta)
        barrier()  # a rank that SIGTERM ends has the others killed, and so may not be ahead of the writing one
        if meta['iter'] > self._judged_iter:
            self._losses_were_finite = _losses_are_finite(runner, meta['iter'] - self._judged_iter)
        self.saved_iter = self._judged_iter = meta['iter']
        if not (self._losses_were_finite and weights_are_finite):
            what = 'losses' if weights_are_finite else 'weights'
            print_log(f'{what} are not finite: no sound checkpoint is removed', 'current', logging.WARNING)
        if weights_are_finite:
            self._put_off(runner, self.PREEMPTED)
        self._remove_outdated(runner, sound_too=self._losses_were_finite and weights_are_finite)

    def _put_off(self, runner, name: str) -> None:
        outdated = runner.message_hub.runtime_info.get(self.OUTDATED, ())
        runner.message_hub.update_info(self.OUTDATED, list(dict.fromkeys([*outdated, name])))

    def _remove_outdated(self, runner, sound_too: bool) -> None:
        """Remove the files that have a successor; without ``sound_too`` only those whose weights are not finite."""
        info = runner.message_hub.runtime_info
        kept = {Path(path).name for key, path in info.items() if path and key.startswith(('last_ckpt', 'best_ckpt'))}
        waiting = []
        for name in info.get(self.OUTDATED, ()):
            path = self.file_backend.join_path(self.out_dir, name)
            if not self._is_own(name) or name in kept:
                continue
            if not sound_too and name not in info.get(self.UNSOUND, ()):
                waiting.append(name)
            elif is_main_process() and self.file_backend.isfile(path):
                self._remove(path)
        runner.message_hub.update_info(self.OUTDATED, waiting)

    def _is_own(self, name: str) -> bool:
        """Whether a file name is one that this hook gives: a step's, the best one's, or the preempted one's."""
        step = re.sub(r'\\\{.*?\\\}', r'\\d+', re.escape(self.filename_tmpl))  # the field may have a format, as {:03d}
        return bool(re.fullmatch(rf'(best_[^/\0]+_)?{step}', name)) or name == self.PREEMPTED

    def _take_over(self, runner) -> None:
        """Look at what the message hub brings from a checkpoint, before MMEngine uses it to remove files."""
        info = runner.message_hub.runtime_info
        for key, fits in ((self.OUTDATED, _is_name), (self.UNSOUND, _is_name), ('keep_ckpt_ids', is_count)):
            if not is_list_of(info.get(key, ()), fits):
                raise ValueError(f'the checkpoint that is resumed from has {key}={info[key]!r}: resume from another')
        steps = list(info.get('keep_ckpt_ids', ()))
        if self.max_keep_ckpts > 0 and len(steps) > self.max_keep_ckpts:  # fewer than in the run before
            for step in steps[: -self.max_keep_ckpts]:
                self._put_off(runner, self.filename_tmpl.format(step))
            runner.message_hub.update_info('keep_ckpt_ids', steps[-self.max_keep_ckpts :])

    def _relocate(self, runner) -> None:
        """Look for the last and the best checkpoints in this run's folder, wherever the file says that they are."""
        for key, path in list(runner.message_hub.runtime_info.items()):
            if key.startswith(('last_ckpt', 'best_ckpt')) and path is not None:
                name = Path(str(path)).name
                path = self.file_backend.join_path(self.out_dir, name) if self._is_own(name) else None
                runner.message_hub.update_info(key, path)
                if key == 'last_ckpt':
                    self.last_ckpt = path  # without it MMEngine does not write the new best one's name into it
                elif key == 'best_ckpt':
                    self.best_ckpt_path = path
                elif key.removeprefix('best_ckpt_') in getattr(self, 'best_ckpt_path_dict', {}):
                    self.best_ckpt_path_dict[key.removeprefix('best_ckpt_')] = path


def _is_name(value) -> bool:
    return isinstance(value, str)


def _weights_are_finite(runner) -> bool:
    """Whether all weights and statistics are finite; the same on all ranks, which share them."""
    values = unwrapped(runner.model).state_dict().values()
    found = [torch.isfinite(value).all() for value in values if value.is_floating_point()]
    return not found or bool(torch.stack(found).all())


def _losses_are_finite(runner, count: int) -> bool:
    """Whether the losses of so many last iterations were finite, as far as this rank knows them."""
    histories = [history for name, history in runner.message_hub.log_scalars.items() if 'loss' in name]
    return all(np.isfinite(history.data[0][-count:]).all() for history in histories)


def _time(runner) -> int:
    """What the loop counts evaluations by: epochs or iterations."""
    return runner.epoch if isinstance(runner.train_loop, EpochBasedTrainLoop) else runner.iter


def _evaluation_is_due(runner) -> bool:
    loop, time = runner.train_loop, _time(runner)
    if runner.val_loop is None or time < loop.val_begin:
        return False
    interval = loop.dynamic_intervals[bisect(loop.dynamic_milestones, time + 1) - 1]
    last = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    return time % interval == 0 or time == last
