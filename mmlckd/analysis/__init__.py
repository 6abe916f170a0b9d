"""What is known about a network's Lipschitz constants: numbers, reports, figures."""

from __future__ import annotations

from .figures import plot_report
from .history_figures import columns_of, plot_history, plot_layers
from .layer_norms import LayerNorms
from .local_lipschitz import local_lipschitz
from .product_bound import Bound, product_bound
from .profile import transmitting_profile
from .report import Options, analyze
from .report_text import report_gaps, report_page, report_table
from .robustness import robust_accuracy

__all__ = [
    'Bound',
    'LayerNorms',
    'Options',
    'analyze',
    'columns_of',
    'local_lipschitz',
    'plot_history',
    'plot_layers',
    'plot_report',
    'product_bound',
    'report_gaps',
    'report_page',
    'report_table',
    'robust_accuracy',
    'transmitting_profile',
]
