"""``taps='auto'``: the places of student and teacher that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from torch import nn

from .rule import Place, find_places

Pair = tuple[Place, Place]  # of the student and of the teacher
_known: WeakKeyDictionary[nn.Module, WeakKeyDictionary[nn.Module, list[Pair]]] = WeakKeyDictionary()


def auto_pairs(student: nn.Module, teacher: nn.Module) -> list[Pair]:
    """The pairs of places that the rule of :func:`.find_places` finds, shallow to deep; found once for two networks.

    Tokens are laid out on the grid that follows from the size of the images, without class tokens.

    Raises:
        ValueError: The rule finds nothing on one side, or the student is frozen wherever it could be tapped.
    """
    of_student = _known.setdefault(student, WeakKeyDictionary())
    if teacher not in of_student:
        ours, theirs = find_places(student), find_places(teacher)
        of_student[teacher] = [(on_grid(one), on_grid(other)) for one, other in pair_places(ours, theirs)]
    return of_student[teacher]


def on_grid(place: Place) -> Place:
    """Tokens laid out on their grid; maps as they are."""
    return replace(place, tap=replace(place.tap, grid='auto')) if place.is_tokens else place


def pair_places(student: Sequence[Place], teacher: Sequence[Place]) -> list[Pair]:
    """Pair the places of two networks by stride, and those of one stride by depth, from the deepest on.

    Places of the student whose gradient reaches no trainable weight are left out. Where the networks have no stride in
    common, places are paired by depth alone.

    Raises:
        ValueError: No place of the student is trainable.

    Source: this project.
    """
    ours = [place for place in student if place.trainable]
    if not ours:
        raise ValueError(
            "taps is 'auto' and all places where the student could be tapped are frozen: lower frozen_stages, or list "
            'module paths'
        )
    strides = {place.stride for place in ours} & {place.stride for place in teacher}
    if not strides:
        return _by_depth(ours, teacher)
    pairs = []
    for stride in sorted(strides):
        pairs += _by_depth(
            [place for place in ours if place.stride == stride], [place for place in teacher if place.stride == stride]
        )
    return pairs


def _by_depth(student: Sequence[Place], teacher: Sequence[Place]) -> list[Pair]:
    count = min(len(student), len(teacher))
    return list(zip(student[-count:], teacher[-count:]))
