"""Who trains whom: a student, and beside it a frozen teacher."""

from __future__ import annotations

from .distillation import Distillation
from .frozen_teacher import FrozenTeacher
from .lipschitz_distiller import LipschitzDistiller, entries_of

__all__ = ['Distillation', 'FrozenTeacher', 'LipschitzDistiller', 'entries_of']
