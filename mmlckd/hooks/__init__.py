"""Hooks for any MMEngine run."""

from .connector_warmup_hook import ConnectorWarmupHook
from .finite_loss_hook import FiniteLossHook
from .loss_weight_hook import LossWeightHook
from .momentum_restart_hook import MomentumRestartHook
from .preemption_hook import PreemptionHook
from .random_state_hook import RandomStateHook
from .run_check_hook import RunCheckHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .spectral_norm_hook import SpectralNormHook

__all__ = ['ConnectorWarmupHook', 'FiniteLossHook', 'LossWeightHook', 'MomentumRestartHook', 'PreemptionHook', 'RandomStateHook',
           'RunCheckHook', 'SafeCheckpointHook',
           'SpectralNormHook']
