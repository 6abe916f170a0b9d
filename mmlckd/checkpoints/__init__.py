"""Checkpoints: read without running what is in them, written whole or not at all."""

from __future__ import annotations

from .reading import install_safe_loader, read_checkpoint, trust_checkpoints
from .weights import load_weights, misfit, weights_of
from .writing import LAST, AtomicBackend, newest_checkpoint

__all__ = [
    'LAST',
    'AtomicBackend',
    'install_safe_loader',
    'load_weights',
    'misfit',
    'newest_checkpoint',
    'read_checkpoint',
    'trust_checkpoints',
    'weights_of',
]
