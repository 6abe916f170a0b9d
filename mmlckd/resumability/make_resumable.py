"""A config whose run loses nothing to a kill."""

from __future__ import annotations

import logging

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmlckd.registry import HOOKS, LOOPS, same_type

from .resumable_iter_loop import ResumableIterLoop
from .safe_checkpoint_hook import SafeCheckpointHook

_HOOKS = dict(
    run_check='mmlckd.RunCheckHook',
    random_state='mmlckd.RandomStateHook',
    gradient_state='mmlckd.GradientStateHook',
)
_LOOPS = {EpochBasedTrainLoop: 'mmlckd.ResumableEpochLoop', IterBasedTrainLoop: 'mmlckd.ResumableIterLoop'}


def make_resumable(config: Config) -> None:
    """Give a run the hooks and the loop that lose nothing to a kill, in the place of MMEngine's own.

    Types of the user's own stay, as do hooks that are set to None. What takes the place of something that the config
    names is logged.
    """
    config.setdefault('default_hooks', {})
    hooks = config.default_hooks  # setdefault returns what it was given, and a config keeps a copy
    for name, kind in _HOOKS.items():
        hooks.setdefault(name, dict(type=kind))
    hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    checkpoint = hooks.checkpoint
    if checkpoint is not None and same_type(checkpoint.get('type'), HOOKS, CheckpointHook):
        _replace(checkpoint, 'mmlckd.SafeCheckpointHook', 'default_hooks.checkpoint')
    if checkpoint is not None and same_type(checkpoint.get('type'), HOOKS, SafeCheckpointHook):
        hooks.setdefault('preemption', dict(type='mmlckd.PreemptionHook'))
    loop = config.get('train_cfg')
    if not isinstance(loop, dict) or 'type' in loop and 'by_epoch' in loop:  # both: MMEngine refuses that
        return
    if 'by_epoch' in loop:
        loop['type'] = EpochBasedTrainLoop if loop.pop('by_epoch') else IterBasedTrainLoop
    for kind, ours in _LOOPS.items():
        if same_type(loop.get('type'), LOOPS, kind):
            _replace(loop, ours, 'train_cfg')
    if checkpoint is not None and same_type(loop.get('type'), LOOPS, ResumableIterLoop):
        _count_iterations(checkpoint, loop)


def _count_iterations(checkpoint: dict, loop: dict) -> None:
    """Let a checkpoint hook that does not say what it counts count iterations, in a loop that has no epochs.

    By epochs, its own default, it would write one checkpoint, at the end.
    """
    if 'by_epoch' in checkpoint or not same_type(checkpoint.get('type'), HOOKS, SafeCheckpointHook):
        return
    checkpoint['by_epoch'] = False
    if checkpoint.get('interval', -1) in (-1, 1):
        checkpoint['interval'] = loop.get('val_interval', 1000)
    interval = checkpoint['interval']
    print_log(f'default_hooks.checkpoint: a checkpoint every {interval} iterations', 'current', logging.INFO)


def _replace(entry: dict, kind: str, field: str) -> None:
    print_log(f'{field}: {kind} in the place of {_name(entry["type"])}', 'current', logging.INFO)
    entry['type'] = kind


def _name(kind: str | type) -> str:
    return kind if isinstance(kind, str) else kind.__name__
