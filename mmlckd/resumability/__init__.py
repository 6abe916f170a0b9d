"""Runs that a kill, a full disk or a wrong checkpoint cannot spoil: hooks, and loops that resume where they were."""

from __future__ import annotations

from .gradient_state_hook import GradientStateHook
from .make_resumable import make_resumable
from .preemption_hook import PreemptionHook
from .random_state_hook import RandomStateHook
from .resumable_epoch_loop import ResumableEpochLoop
from .resumable_iter_loop import ResumableIterLoop
from .run_check_hook import RunCheckHook
from .safe_checkpoint_hook import SafeCheckpointHook

__all__ = [
    'GradientStateHook',
    'PreemptionHook',
    'RandomStateHook',
    'ResumableEpochLoop',
    'ResumableIterLoop',
    'RunCheckHook',
    'SafeCheckpointHook',
    'make_resumable',
]
