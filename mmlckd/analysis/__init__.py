"""From records and checkpoints to figures."""

from .figures import plot_history, plot_layers
from .layer_norms import LayerNorms
from .profile import profile_distance, transmitting_profile

__all__ = ['LayerNorms', 'plot_history', 'plot_layers', 'profile_distance', 'transmitting_profile']
