"""Whether the maps of a loss without connectors have the channels, or the classes, that it needs on both sides."""

from __future__ import annotations

from torch import nn

from mmlckd.taps import DryRun, Tap

from .loss_entry import LossEntry


def refuse_other_channels(
    entry: LossEntry, student: nn.Module, ours: DryRun, teacher: nn.Module, theirs: DryRun
) -> None:
    """See before training what a loss that needs equal channels would refuse at the first step.

    Args:
        entry: The loss, of which ``alike`` tells what it needs.
        student, ours: The student, and its dry run.
        teacher, theirs: The teacher, and its dry run.

    Raises:
        ValueError: The channels differ, and no connector brings them together.
    """
    if entry.connectors is not None or getattr(entry.loss, 'alike', 'batch') not in ('shape', 'channels'):
        return
    for one, other in zip(entry.student_taps, entry.teacher_taps):
        counts = _width(student, ours, one), _width(teacher, theirs, other)
        if counts[0] == counts[1]:
            continue
        if len(ours.shapes[one]) == len(theirs.shapes[other]) == 2:
            raise ValueError(
                f'losses.{entry.name} compares {one}, which gives {counts[0]} classes, with {other}, which gives '
                f'{counts[1]}: take this loss out, or give a teacher of the same classes; maps of features can be '
                'compared all the same'
            )
        raise ValueError(
            f'losses.{entry.name} compares {one}, which gives {counts[0]} channels, with {other}, which gives '
            f'{counts[1]}: set connectors=True on this loss, or tap maps of equal channels'
        )


def _width(model: nn.Module, run: DryRun, tap: Tap) -> int:
    """Channels of a tap's tensor; a linear layer gives them last in any number of dimensions."""
    linear = isinstance(model.get_submodule(tap.module), nn.Linear) and tap.io == 'output' and tap.grid is None
    return run.shapes[tap][-1] if linear else run.channels(tap)
