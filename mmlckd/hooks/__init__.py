"""Hooks for any MMEngine run."""

from .random_state_hook import RandomStateHook
from .spectral_norm_hook import SpectralNormHook

__all__ = ['RandomStateHook', 'SpectralNormHook']
