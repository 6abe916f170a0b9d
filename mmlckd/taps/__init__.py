"""Taps: where maps are read in a network, and what a dry run finds out about them."""

from __future__ import annotations

from .dry_run import DryRun, ForwardFailed, default_input_shape, dry_run, input_shapes
from .feature_tap import EverythingTapped, FeatureTap
from .hosts import host_of
from .preprocessing import InputAdapter, Preprocessing
from .tap import GridError, Tap, TapError, parse_taps

__all__ = [
    'DryRun',
    'EverythingTapped',
    'FeatureTap',
    'ForwardFailed',
    'GridError',
    'InputAdapter',
    'Preprocessing',
    'Tap',
    'TapError',
    'default_input_shape',
    'dry_run',
    'host_of',
    'input_shapes',
    'parse_taps',
]
