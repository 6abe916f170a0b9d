"""Whether a checkpoint is about to be written."""

from __future__ import annotations

from mmengine.hooks import CheckpointHook


def checkpoint_is_due(runner, by_epoch: bool) -> bool:
    """Whether a CheckpointHook that counts so writes at the end of this epoch (iteration); the same on all ranks."""
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook) or hook.by_epoch is not by_epoch:
            continue
        if by_epoch:
            regular = hook.every_n_epochs(runner, hook.interval, hook.save_begin)
            last = hook.is_last_train_epoch(runner)
        else:
            regular = hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
            last = hook.is_last_train_iter(runner)
        if regular or last:
            return True
    return False
