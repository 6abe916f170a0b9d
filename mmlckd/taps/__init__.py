"""Taps: where maps are read in a network, and what a dry run finds out about them."""

from __future__ import annotations

from .dry_run import DryRun, ForwardFailed, dry_run
from .feature_tap import EverythingTapped, FeatureTap
from .hosts import host_of
from .input_shapes import default_input_shape, input_shapes
from .logits import OUTPUTS, output_pairs
from .pairing import Pair, auto_pairs, pair_places
from .parsing import parse_taps
from .preprocessing import Borders, InputAdapter, Preprocessing
from .reach import carries_gradient
from .rule import Place, find_places
from .tap import GridError, Tap, TapError

__all__ = [
    'OUTPUTS',
    'Borders',
    'DryRun',
    'EverythingTapped',
    'FeatureTap',
    'ForwardFailed',
    'GridError',
    'InputAdapter',
    'Pair',
    'Place',
    'Preprocessing',
    'Tap',
    'TapError',
    'auto_pairs',
    'carries_gradient',
    'default_input_shape',
    'dry_run',
    'find_places',
    'host_of',
    'input_shapes',
    'output_pairs',
    'pair_places',
    'parse_taps',
]
