"""``taps='auto'``: the places of student and teacher that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from torch import nn

from .rule import Place, find_places
from .tracing import made_for

Pair = tuple[Place, Place]  # of the student and of the teacher
_known: WeakKeyDictionary[nn.Module, WeakKeyDictionary[nn.Module, list[Pair]]] = WeakKeyDictionary()


def auto_pairs(student: nn.Module, teacher: nn.Module) -> list[Pair]:
    """The pairs of places that the rule of :func:`.find_places` finds, shallow to deep; found once for two networks.

    Tokens are laid out on a grid, for images of the size that the student is made for, else the teacher.

    Raises:
        ValueError: The rule finds nothing on one side, or the student is frozen wherever it could be tapped.
    """
    of_student = _known.setdefault(student, WeakKeyDictionary())
    if teacher not in of_student:
        ours, theirs = find_places(student), find_places(teacher)
        size = _image_size(student, ours) or _image_size(teacher, theirs)
        pairs = pair_places(ours, theirs)
        of_student[teacher] = [(on_grid(one, size), on_grid(other, size)) for one, other in pairs]
    return of_student[teacher]


def on_grid(place: Place, size: int | None) -> Place:
    """Tokens laid out on their grid for images of this side in px, without class tokens; maps as they are."""
    if not place.is_tokens or size is None:
        return place
    side = size // place.stride
    return replace(place, tap=replace(place.tap, grid=(side, side)))


def _image_size(model: nn.Module, places: Sequence[Place]) -> int | None:
    """Side in px of the images that a transformer is made for, as it says or as its patches come to; None: any."""
    patches = getattr(model.backbone, 'patch_resolution', None)
    if made_for(model) is None and patches is not None:
        return patches[0] * places[0].stride
    return made_for(model)


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
