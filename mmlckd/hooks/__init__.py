"""Hooks for any MMEngine run."""

from .connector_warmup_hook import ConnectorWarmupHook
from .loss_weight_hook import LossWeightHook
from .momentum_restart_hook import MomentumRestartHook
from .preemption_hook import PreemptionHook
from .random_state_hook import RandomStateHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .spectral_norm_hook import SpectralNormHook

__all__ = ['ConnectorWarmupHook', 'LossWeightHook', 'MomentumRestartHook', 'PreemptionHook', 'RandomStateHook', 'SafeCheckpointHook',
           'SpectralNormHook']
