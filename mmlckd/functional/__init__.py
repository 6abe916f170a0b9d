"""Pure tensor functions: no state, no registry."""

from __future__ import annotations

from .local_change import output_change, relative_change_error
from .operator_norm import operator_norm
from .transmitting import transmitting_norm

__all__ = ['operator_norm', 'output_change', 'relative_change_error', 'transmitting_norm']
