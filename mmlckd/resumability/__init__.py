"""Runs that a kill, a full disk or a wrong checkpoint cannot spoil: hooks, and a loop that resumes within an epoch."""

from __future__ import annotations

from .make_resumable import make_resumable
from .preemption_hook import PreemptionHook
from .random_state_hook import RandomStateHook
from .resumable_epoch_loop import ResumableEpochLoop
from .run_check_hook import RunCheckHook
from .safe_checkpoint_hook import SafeCheckpointHook

__all__ = [
    'PreemptionHook',
    'RandomStateHook',
    'ResumableEpochLoop',
    'RunCheckHook',
    'SafeCheckpointHook',
    'make_resumable',
]
