"""Whether a distillation loss can teach the student anything, seen from the autograd graph of one training step."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from mmengine.logging import print_log
from torch import Tensor, nn

from mmlckd.compatibility import not_compiled
from mmlckd.taps import FeatureTap, Tap, carries_gradient

from .loss_entry import LossEntry

SWITCHES = ('with_cp', 'with_checkpoint', 'use_checkpoint', 'grad_checkpointing', 'gradient_checkpointing')


@not_compiled  # the graph of a compiled region is only there outside of it
def check_gradients(entries: Sequence[LossEntry], student_feats: Sequence[FeatureTap]) -> None:
    """See that every loss has a student map that carries gradient to a trainable weight of the student.

    Each loss is judged by its maps in the views that it compares. Connectors do not count: the maps are looked at
    before them. Nothing is computed, and the device is not waited for. Where only some maps of a loss carry no
    gradient, a warning names them.

    Args:
        entries: The losses.
        student_feats: The student's maps of one training step, with their graph, in the first view and the second.

    Raises:
        ValueError: A loss has no such map; the message says why.

    Source: this project.
    """
    trainable = _trainable(student_feats[0].model)
    idle: dict[str, str | None] = {}  # by the name of a map: why it carries no gradient; None: it does
    for entry in entries:
        maps = list(_maps_of(entry, student_feats))
        for name, tap, feats in maps:
            if name not in idle:
                idle[name] = None if carries_gradient(feats[tap], trainable) else _reason(tap, feats)
        reasons: dict[str, list[str]] = {}
        for name, *_ in maps:
            reason = idle[name]
            if reason is not None:
                reasons.setdefault(reason, []).append(name)
        found = '; '.join(f'{", ".join(names)}: {reason}' for reason, names in reasons.items())
        if found and all(idle[name] for name, *_ in maps):
            raise ValueError(
                f'losses.{entry.name} teaches the student nothing, because its maps carry no gradient to any trainable '
                f'weight of the student ({found}): mend that, tap other modules, or take the loss out'
            )
        if found:
            message = f'losses.{entry.name} gets no gradient to the student from some of its maps ({found})'
            print_log(message, 'current', logging.WARNING)


@not_compiled
def check_values(losses: Mapping[str, Tensor], student: nn.Module) -> None:
    """See that gradient flows from every loss to a trainable weight of the student: a loss may detach its maps.

    Args:
        losses: The values of one training step by the names of the losses, with their graph.
        student: The student.

    Raises:
        ValueError: There is a loss from which none flows.

    Source: this project.
    """
    trainable = _trainable(student)
    for name, value in losses.items():
        if not carries_gradient(value, trainable):
            raise ValueError(
                f'losses.{name} teaches the student nothing, because its value carries no gradient to any trainable '
                'weight of the student: compute it without torch.no_grad() and detach(), or take the loss out'
            )


def _trainable(student: nn.Module) -> set[int]:
    """The ids of the student's own weights that are trained."""
    named = student.named_parameters()
    return {id(weight) for name, weight in named if weight.requires_grad and not name.startswith('distiller.')}


def _maps_of(entry: LossEntry, student_feats: Sequence[FeatureTap]) -> Iterator[tuple[str, Tap, FeatureTap]]:
    """The maps that a loss compares: the name of each for messages, its tap, and its view's maps."""
    for feats in entry.looked_at(student_feats):
        view = '' if feats is student_feats[0] else ' in the second view'
        for tap in entry.student_taps:
            yield f'{tap}{view}', tap, feats


def _reason(tap: Tap, feats: FeatureTap) -> str:
    """Why a map carries no gradient, and what would help."""
    if tap in feats.without_grad:
        switch = _checkpointing(tap, feats.model)
        if switch is not None:
            return f'inside reentrant activation checkpointing, set {switch}=False or tap the output of the whole block'
        return 'computed under torch.no_grad(), or inside reentrant activation checkpointing (with_cp)'
    parameters = feats.model.get_submodule(tap.module).parameters()
    if tap.io == 'output' and any(parameter.requires_grad for parameter in parameters):
        return 'the map is detached from the weights that give it'
    return 'all weights up to there are frozen (frozen_stages, requires_grad), or the map is detached'


def _checkpointing(tap: Tap, model: nn.Module) -> str | None:
    """The field of the tapped module, or of one around it, that switches checkpointing on."""
    parts = tap.module.split('.')
    for end in range(len(parts), 0, -1):
        path = '.'.join(parts[:end])
        module = model.get_submodule(path)
        for name in SWITCHES:
            if getattr(module, name, False) is True:
                return f'{path}.{name}'
    return None
