"""From records and checkpoints to figures."""

from .figures import plot_history
from .profile import profile_distance, transmitting_profile

__all__ = ['plot_history', 'profile_distance', 'transmitting_profile']
