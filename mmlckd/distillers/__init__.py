"""The wrapper that trains a student beside a frozen teacher."""

from .lipschitz_distiller import LipschitzDistiller

__all__ = ['LipschitzDistiller']
