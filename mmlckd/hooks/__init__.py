"""What is watched and scheduled while a student is distilled."""

from __future__ import annotations

from .connector_warmup_hook import ConnectorWarmupHook
from .finite_loss_hook import FiniteLossHook
from .loss_weight_hook import LossWeightHook
from .momentum_restart_hook import MomentumRestartHook
from .spectral_norm_hook import SpectralNormHook

__all__ = ['ConnectorWarmupHook', 'FiniteLossHook', 'LossWeightHook', 'MomentumRestartHook', 'SpectralNormHook']
