"""A config whose run loses nothing to a kill."""

from __future__ import annotations

from mmengine.config import Config


def make_resumable(config: Config) -> None:
    """Give a run the hooks and the loop that lose nothing to a kill, in the place of MMEngine's; hooks of other types stay."""
    hooks = config.setdefault('default_hooks', {})
    hooks.setdefault('random_state', dict(type='mmlckd.RandomStateHook'))
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    if checkpoint is not None and checkpoint.get('type') == 'CheckpointHook':
        checkpoint.type = 'mmlckd.SafeCheckpointHook'
        hooks.setdefault('preemption', dict(type='mmlckd.PreemptionHook'))
    loop = config.get('train_cfg') or {}
    if loop.pop('by_epoch', False) or loop.get('type') == 'EpochBasedTrainLoop':
        loop['type'] = 'mmlckd.ResumableEpochLoop'
