"""Hooks for any MMEngine run."""

from .connector_warmup_hook import ConnectorWarmupHook
from .random_state_hook import RandomStateHook
from .spectral_norm_hook import SpectralNormHook

__all__ = ['ConnectorWarmupHook', 'RandomStateHook', 'SpectralNormHook']
