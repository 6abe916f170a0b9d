"""Recipes for any pair: taps, losses and weights chosen for a student, a teacher and its checkpoint."""

from __future__ import annotations

from .calibration import Measured, measure
from .making import design, make_recipe
from .plan import Plan, Term, choose
from .recipe import Recipe, refuse_as_base, write
from .table import tables

__all__ = [
    'Measured',
    'Plan',
    'Recipe',
    'Term',
    'choose',
    'design',
    'make_recipe',
    'measure',
    'refuse_as_base',
    'tables',
    'write',
]
