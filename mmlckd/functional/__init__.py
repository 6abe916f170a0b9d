"""Pure tensor functions: no state, no registry."""

from __future__ import annotations

from .affine_map import AffineMap, outline
from .folding import folded
from .local_change import output_change, relative_change_error
from .operator_norm import operator_norm
from .partial_distance import partial_squared_distance
from .transmitting import transmitting_norm

__all__ = [
    'AffineMap',
    'folded',
    'operator_norm',
    'outline',
    'output_change',
    'partial_squared_distance',
    'relative_change_error',
    'transmitting_norm',
]
