"""``taps='logits'``: the layers that give student's and teacher's logits."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvNd

from .dry_run import dry_run
from .hosts import host_of
from .tap import Tap


def logits_pair(student: nn.Module, teacher: nn.Module) -> tuple[Tap, Tap]:
    """The layers that give the logits of two networks with the same classes.

    These are a classifier's last linear layer and a segmentor's ``conv_seg``. A detector has no such layer.

    Raises:
        ValueError: One side has no such layer, or the logits of the two sides have other shapes. The message goes on
            from "taps is 'logits' and ...".

    Source: this project.
    """
    taps = [logits_tap(model, side) for model, side in ((student, 'student'), (teacher, 'teacher'))]
    ours, theirs = (_classes_at(model, tap) for model, tap in zip((student, teacher), taps))
    if ours != theirs:
        raise ValueError(
            f"taps is 'logits' and the student has {ours} classes, the teacher {theirs}: leave this loss out, or "
            'give a teacher of the same classes'
        )
    if host_of(student) == 'mmseg':
        shapes = [
            _shape(model, tap, side) for model, tap, side in zip((student, teacher), taps, ('student', 'teacher'))
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"taps is 'logits' and the student's are {shapes[0]}, the teacher's {shapes[1]} for one image: leave "
                'this loss out, or give heads of equal output size'
            )
    return taps[0], taps[1]


def logits_tap(model: nn.Module, side: str) -> Tap:
    """The layer that gives a network's logits.

    Raises:
        ValueError: It has none that is known.
    """
    path = {'mmpretrain': 'head', 'mmseg': 'decode_head'}.get(host_of(model) or '')
    head = getattr(model, path, None) if path else None
    if path and isinstance(head, nn.ModuleList) and len(head):  # a cascade of heads: the last one decides
        path, head = f'{path}.{len(head) - 1}', head[-1]
    found = [] if head is None else [name for name, module in head.named_modules() if _gives_classes(module, head)]
    if not found:
        kind = type(model if head is None else head).__name__
        raise ValueError(
            f"taps is 'logits' and the {side}'s {kind} has no layer that gives logits of one class distribution: name "
            'the modules, or leave this loss out'
        )
    return Tap(f'{path}.{found[0]}')


def _gives_classes(module: nn.Module, head: nn.Module) -> bool:
    classes = getattr(head, 'out_channels', None) or getattr(head, 'num_classes', None)
    return isinstance(module, (nn.Linear, _ConvNd)) and _outputs(module) == classes


def _outputs(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _classes_at(model: nn.Module, tap: Tap) -> int:
    return _outputs(model.get_submodule(tap.module))


def _shape(model: nn.Module, tap: Tap, side: str) -> tuple[int, ...]:
    run = dry_run(model, [tap], None, side)
    return tuple(length * 64 // run.input_shape[-1] for length in run.shapes[tap][2:])
