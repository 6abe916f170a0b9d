"""``taps='logits'`` and ``taps='boxes'``: the places where student and teacher give their predictions."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvNd

from .dense_heads import dense_taps
from .dry_run import DryRun, dry_run
from .hosts import host_of
from .tap import Tap

OUTPUTS = ('logits', 'boxes')


def output_pairs(student: nn.Module, teacher: nn.Module, kind: str = 'logits') -> list[tuple[Tap, Tap]]:
    """The places that give the predictions of two networks: pairs of student's and teacher's.

    ``kind='logits'``:

    - a classifier's last linear layer, or its whole head where it has no such layer;
    - of heads of several tasks, those of the tasks that both networks have;
    - a segmentor's ``conv_seg``;
    - the classes of a single-stage detector, level by level.

    ``kind='boxes'``: the boxes of a single-stage detector, level by level.

    Raises:
        ValueError: One side has no such place, or the two sides have other classes, levels or sizes. The message goes
            on from "taps is '...' and ...".

    Source: this project.
    """
    if kind == 'boxes' or host_of(student) == 'mmdet':
        ours, theirs = (dense_taps(model, kind, side) for model, side in ((student, 'student'), (teacher, 'teacher')))
        _refuse_other_levels(student, teacher, kind, len(ours), len(theirs))
    else:
        ours, theirs = _by_task(student, teacher)
    runs = dry_run(student, ours, None, 'student'), dry_run(teacher, theirs, None, 'teacher')
    for one, other in zip(ours, theirs):
        _refuse_others(kind, one, *runs, other)
    if host_of(student) == 'mmseg':
        sizes = [_size(run, tap) for run, tap in zip(runs, (ours[0], theirs[0]))]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"taps is 'logits' and the student's are {sizes[0]}, the teacher's {sizes[1]} for one image: leave "
                'this loss out, or give heads of equal output size'
            )
    return list(zip(ours, theirs))


def _refuse_other_levels(student: nn.Module, teacher: nn.Module, kind: str, ours: int, theirs: int) -> None:
    if ours != theirs:
        raise ValueError(
            f'taps is {kind!r} and the student gives them at {ours} levels, the teacher at {theirs}: leave this loss '
            'out, or give detectors with the same head'
        )
    generators = [getattr(model.bbox_head, 'prior_generator', None) for model in (student, teacher)]
    strides = [getattr(generator, 'strides', None) for generator in generators]
    if None not in strides and strides[0] != strides[1]:
        raise ValueError(
            f'taps is {kind!r} and the student gives them at strides {strides[0]}, the teacher at {strides[1]}: leave '
            'this loss out, or give detectors with the same head'
        )


def _refuse_others(kind: str, ours: Tap, student: DryRun, teacher: DryRun, theirs: Tap) -> None:
    counts = student.channels(ours), teacher.channels(theirs)
    if counts[0] == counts[1]:
        return
    if kind == 'logits':
        raise ValueError(
            f"taps is 'logits' and the student has {counts[0]} classes, the teacher {counts[1]}: leave this loss out, "
            'or give a teacher of the same classes; maps of features can be compared all the same'
        )
    raise ValueError(
        f"taps is 'boxes' and the student gives {counts[0]} numbers a position, the teacher {counts[1]}: leave this "
        'loss out, or give detectors with the same head'
    )


def _by_task(student: nn.Module, teacher: nn.Module) -> tuple[list[Tap], list[Tap]]:
    ours, theirs = _heads_of(student, 'student'), _heads_of(teacher, 'teacher')
    tasks = [task for task in ours if task in theirs]
    if not tasks:
        raise ValueError(
            f"taps is 'logits' and the student's head is for {_names(ours)}, the teacher's for {_names(theirs)}: leave "
            'this loss out, or give a teacher that has a task of the student'
        )
    heads = ((student, ours, 'student'), (teacher, theirs, 'teacher'))
    taps = [[_tap_in(model, heads[task], side) for task in tasks] for model, heads, side in heads]
    return taps[0], taps[1]


def _names(heads: dict[str, str]) -> str:
    return ', '.join(repr(task) for task in heads if task) or 'one task'


def _heads_of(model: nn.Module, side: str) -> dict[str, str]:
    """Paths of a network's heads by task; the task of an only head is ''."""
    path = {'mmpretrain': 'head', 'mmseg': 'decode_head'}.get(host_of(model) or '', '')
    head = getattr(model, path, None) if path else None
    if not isinstance(head, nn.Module):
        raise ValueError(_no_logits(model, side))
    if isinstance(head, nn.ModuleList) and len(head):  # a cascade of heads: the last one decides
        return {'': f'{path}.{len(head) - 1}'}
    tasks = getattr(head, 'task_heads', None)
    if tasks is None:
        return {'': path}
    return {task: f'{path}.task_heads.{task}' for task in tasks}


def _tap_in(model: nn.Module, path: str, side: str) -> Tap:
    """The layer of a head that gives the logits, or a classifier's head itself."""
    head = model.get_submodule(path)
    if hasattr(head, 'task_heads'):  # tasks within a task
        raise ValueError(_no_logits(head, side))
    classes = getattr(head, 'out_channels', None) or getattr(head, 'num_classes', None)
    if hasattr(head, 'norm_product'):  # ArcFace's: cosines, and no logits
        raise ValueError(_no_logits(head, side))
    found = [name for name, module in head.named_modules() if _gives(module, classes)]
    if host_of(model) == 'mmpretrain':  # of several the last, which a second output for distillation does not count as
        found = [name for name in found if isinstance(head.get_submodule(name), nn.Linear)][::-1]
        found.sort(key=lambda name: 'dist' in name)
    if found:
        return Tap(f'{path}.{found[0]}')
    if host_of(model) != 'mmpretrain' or not _gives_one_tensor(model, path, side):
        raise ValueError(_no_logits(head, side))
    return Tap(path)


def _gives(module: nn.Module, classes: int | None) -> bool:
    channels = getattr(module, 'out_features' if isinstance(module, nn.Linear) else 'out_channels', None)
    return isinstance(module, (nn.Linear, _ConvNd)) and channels == classes


def _gives_one_tensor(model: nn.Module, path: str, side: str) -> bool:
    """Whether a head gives logits (B, K) when it is called, in training as in evaluation."""
    tap = Tap(path)
    try:
        shapes = [dry_run(model, [tap], None, side, trained).shapes[tap] for trained in (False, True)]
    except ValueError:
        return False
    return shapes[0] == shapes[1] and len(shapes[0]) == 2


def _no_logits(module: nn.Module, side: str) -> str:
    return (
        f"taps is 'logits' and the {side}'s {type(module).__name__} has no layer that gives logits of one class "
        'distribution: name the modules, or leave this loss out'
    )


def _size(run: DryRun, tap: Tap) -> tuple[int, ...]:
    """Rows and columns of a segmentor's logits for an image of 64 px."""
    return tuple(length * 64 // run.input_shape[-1] for length in run.shapes[tap][2:])
