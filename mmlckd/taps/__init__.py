"""Taps: where maps are read in a network, and what a dry run finds out about them."""

from __future__ import annotations

from .dry_run import DryRun, ForwardFailed, default_input_shape, dry_run
from .feature_tap import EverythingTapped, FeatureTap
from .preprocessing import InputAdapter, Preprocessing
from .tap import Tap, parse_taps

__all__ = [
    'DryRun',
    'EverythingTapped',
    'FeatureTap',
    'ForwardFailed',
    'InputAdapter',
    'Preprocessing',
    'Tap',
    'default_input_shape',
    'dry_run',
    'parse_taps',
]
