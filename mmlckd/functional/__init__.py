"""Pure tensor functions: no state, no registry."""

from __future__ import annotations

from .operator_norm import operator_norm
from .transmitting import transmitting_norm

__all__ = ['operator_norm', 'transmitting_norm']
