"""Studies: methods of distillation on data sets with seeds, run by ordinary configs and compared in pairs."""

from __future__ import annotations

from .cell import Cell, method_title
from .plan import Study
from .pool import run_all
from .statistics import Comparison, compare, holm

__all__ = ['Cell', 'Comparison', 'Study', 'compare', 'holm', 'method_title', 'run_all']
