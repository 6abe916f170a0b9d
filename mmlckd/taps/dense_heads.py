"""Which convolutions of a single-stage detector's head give classes, and which give boxes."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvNd

from .hosts import host_of
from .parsing import every_call
from .tap import Tap

SIDES = 4  # numbers that a box needs


def anchors_of(head: nn.Module) -> list[int]:
    """The numbers of anchors that a position of a detector's head may have; levels may differ."""
    anchors = getattr(head, 'num_base_priors', 1)
    return list(anchors) if isinstance(anchors, (list, tuple)) else [anchors]


def box_bins(head: nn.Module, path: str, layer: nn.Module) -> int | None:
    """How many numbers a layer gives for each side of a box: 1, or the bins of a distribution; None: it gives no box.

    Args:
        head: The detector's head.
        path: The layer's path, whose last parts tell boxes from classes.
        layer: The layer.
    """
    if not isinstance(layer, _ConvNd) or not _is_named(path, ('reg', 'bbox', 'loc'), but='cls'):
        return None
    bins = getattr(head, 'reg_max', None)
    for count in [1] if not isinstance(bins, int) else [bins + 1, 1]:
        if layer.out_channels in [SIDES * count * anchors for anchors in anchors_of(head)]:
            return count
    return None


def dense_taps(model: nn.Module, kind: str, side: str) -> list[Tap]:
    """What a single-stage detector's head gives at each level: a tap a level.

    Args:
        model: The detector.
        kind: 'logits' for its classes, 'boxes' for its boxes.
        side: 'student' or 'teacher', for messages.

    Raises:
        ValueError: It is no such detector. The message goes on from "taps is '...' and ...".
    """
    head = getattr(model, 'bbox_head', None)
    if host_of(model) != 'mmdet' or not isinstance(head, nn.Module) or hasattr(model, 'roi_head'):
        why = ', whose proposals differ from network to network' if hasattr(model, 'roi_head') else ''
        raise ValueError(
            f'taps is {kind!r} and the {side} is a {type(model).__name__}{why}, no single-stage detector: name the '
            'modules, or leave this loss out'
        )
    parents = dict(head.named_modules())
    paths = [
        path
        for path, module in parents.items()
        if (_gives_classes(head, path, module) if kind == 'logits' else box_bins(head, path, module) is not None)
        and type(parents[path.rpartition('.')[0]]).__name__ != 'ConvModule'  # these make features
    ]
    if not paths:
        raise ValueError(
            f"taps is {kind!r} and the {side}'s {type(head).__name__} has no convolution that gives them at every "
            'position: name the modules, or leave this loss out'
        )
    return every_call([Tap(f'bbox_head.{path}', call='all') for path in paths], model, side)


def _gives_classes(head: nn.Module, path: str, layer: nn.Module) -> bool:
    classes = getattr(head, 'cls_out_channels', None) or getattr(head, 'num_classes', None)
    if not isinstance(layer, _ConvNd) or not isinstance(classes, int) or not _is_named(path, ('cls', 'heatmap')):
        return False
    return layer.out_channels in [classes * anchors for anchors in anchors_of(head)]


def _is_named(path: str, words: tuple[str, ...], but: str = '') -> bool:
    return any(word in path for word in words) and not (but and but in path)
