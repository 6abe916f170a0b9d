"""Whether a distillation loss can teach the student anything, seen from the autograd graph of one training step."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mmengine.logging import print_log
from torch import nn

from mmlckd.compatibility import not_compiled
from mmlckd.taps import FeatureTap, Tap, carries_gradient

from .loss_entry import LossEntry

SWITCHES = ('with_cp', 'with_checkpoint', 'use_checkpoint', 'grad_checkpointing', 'gradient_checkpointing')


@not_compiled  # the graph of a compiled region is only there outside of it
def check_gradients(entries: Sequence[LossEntry], student_feats: FeatureTap) -> None:
    """See that every loss has a student map that carries gradient to a trainable weight of the student.

    Connectors do not count: the maps are looked at before them. Nothing is computed, and the device is not waited for.
    Where only some maps of a loss carry no gradient, a warning names them.

    Args:
        entries: The losses.
        student_feats: The student's maps of one training step, with their graph.

    Raises:
        ValueError: A loss has no such map; the message says why.

    Source: this project.
    """
    student = student_feats.model
    trainable = {
        id(parameter)
        for name, parameter in student.named_parameters()
        if parameter.requires_grad and not name.startswith('distiller.')
    }
    idle = {
        tap: _reason(tap, student_feats)
        for tap in student_feats.taps
        if not carries_gradient(student_feats[tap], trainable)
    }
    for entry in entries:
        reasons: dict[str, list[str]] = {}
        for tap in entry.student_taps:
            if tap in idle:
                reasons.setdefault(idle[tap], []).append(str(tap))
        found = '; '.join(f'{", ".join(taps)}: {reason}' for reason, taps in reasons.items())
        if found and all(tap in idle for tap in entry.student_taps):
            raise ValueError(
                f'losses.{entry.name} teaches the student nothing, because its maps carry no gradient to any trainable '
                f'weight of the student ({found}): mend that, tap other modules, or take the loss out'
            )
        if found:
            message = f'losses.{entry.name} gets no gradient to the student from some of its maps ({found})'
            print_log(message, 'current', logging.WARNING)


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
