"""What was chosen for a pair, as a table to print."""

from __future__ import annotations

from collections.abc import Sequence

from mmlckd.taps import Place

from .recipe import NOT_MEASURED, Recipe


def tables(recipe: Recipe) -> str:
    """The pairs of taps, and the losses with their weights and what they weigh at the start."""
    taps = [('stride', 'student', 'shape', 'teacher', 'shape')]
    taps += [
        (str(ours.stride), str(ours.tap), _shape(ours), str(theirs.tap), _shape(theirs))
        for ours, theirs in recipe.plan.pairs
    ]
    losses = [('loss', 'weight', 'share of total', 'gradient', 'at most', 'why')]
    for term in recipe.plan.terms:
        measured, guard = recipe.measured, recipe.max_share(term)
        losses.append(
            (
                term.name,
                f'{recipe.weight(term):g}',
                f'{measured.shares[term.name]:.1%}' if measured else '-',
                f'{measured.gradients[term.name]:.2f}' if measured else '-',
                '-' if guard is None else f'{guard:.0%}',
                term.why,
            )
        )
    said = NOT_MEASURED
    if recipe.measured:
        said = f"measured on {recipe.measured.on}; gradient: norm on the student's backbone over that of its own losses"
    zeros = '(shapes without the batch, on the zeros that the rule ran on)'
    return '\n'.join([_aligned(taps), zeros, '', _aligned(losses), f'({said})', *recipe.plan.notes])


def _shape(place: Place) -> str:
    return 'x'.join(map(str, place.shape[1:]))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
