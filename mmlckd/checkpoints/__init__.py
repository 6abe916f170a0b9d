"""Checkpoints: read without running what is in them, written whole or not at all."""

from __future__ import annotations

from .folder_lock import lock_folder, unlock_folders
from .newest import LAST, newest_checkpoint
from .reading import install_safe_loader, read_checkpoint, trust_checkpoints
from .weights import are_weights, load_weights, misfit, weights_of
from .writing import AtomicBackend, remove_leftovers

__all__ = [
    'LAST',
    'AtomicBackend',
    'are_weights',
    'install_safe_loader',
    'load_weights',
    'lock_folder',
    'misfit',
    'newest_checkpoint',
    'read_checkpoint',
    'remove_leftovers',
    'trust_checkpoints',
    'unlock_folders',
    'weights_of',
]
