"""From records and checkpoints to figures."""

from .figures import plot_history

__all__ = ['plot_history']
