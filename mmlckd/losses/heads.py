"""What a teacher's head tells of its logits: activation, classes, anchors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd

from mmlckd.taps.dense_heads import SIDES, anchors_of, box_bins

_LOSSES = ('loss_cls', 'loss_decode', 'loss_module', 'loss')  # under these names heads keep the loss of their classes
_BY_CLASS = dict(  # of losses that have no `use_sigmoid`
    CrossEntropyLoss='softmax',
    NLLLoss='softmax',
    OhemCrossEntropy='softmax',
    BCEWithLogitsLoss='sigmoid',
    MultiLabelSoftMarginLoss='sigmoid',
    FocalLoss='sigmoid',
)


@dataclass(frozen=True)
class Layout:
    """What is known of one tap's logits.

    Args:
        activation: 'softmax' or 'sigmoid'; None: not known.
        classes_last: Whether the classes are the last dimension; None: by the number of dimensions.
        classes: The numbers of channels that one class distribution may have; empty: all channels are one.
        anchors: The numbers of distributions that a position may have.
    """

    activation: str | None = None
    classes_last: bool | None = None
    classes: tuple[int, ...] = ()
    anchors: tuple[int, ...] = (1,)

    def num_classes(self, channels: int, tap: str) -> int:
        """The channels of one distribution, of ``channels`` in all.

        Raises:
            ValueError: They do not follow from what the head says.
        """
        if not self.classes or channels in self.classes:
            return channels
        for classes in self.classes:
            if channels in [classes * anchors for anchors in self.anchors]:
                return classes
        raise ValueError(
            f'{tap} gives {channels} channels, which are not the {" or ".join(map(str, self.classes))} classes of its '
            f'head times {" or ".join(map(str, self.anchors))} anchors: tap the layer that gives the classes, or set '
            'num_classes to the channels of one class distribution'
        )


def layout_at(teacher: nn.Module, tap) -> Layout:
    """What the teacher tells of a tap's logits: the tapped module, and the head that it belongs to.

    Raises:
        ValueError: The tapped module gives boxes as plain numbers.
    """
    module, last = teacher.get_submodule(tap.module), channels_last(teacher, tap)
    head = _head_of(teacher, tap.module)
    if head is None:
        return Layout(classes_last=last)
    anchors = tuple(dict.fromkeys(anchors_of(head)))
    bins = box_bins(head, tap.module.rpartition('head.')[2], module)
    if bins == 1:
        raise ValueError(
            f"teacher tap {tap} gives boxes and no logits: take dict(type='mmlckd.EachMapLoss', "
            "loss=dict(type='torch.nn.SmoothL1Loss'))"
        )
    if bins is not None:  # as GFL has it: a distribution over distances, for each side of a box
        return Layout('softmax', last, (bins,), tuple(SIDES * count for count in anchors))
    return Layout(_activation_of(head), last, _classes_of(head), anchors)


def channels_last(teacher: nn.Module, tap) -> bool | None:
    """Whether a tap's channels are its last dimension, as in what a linear layer gives; None: the layer does not tell.

    A convolution's channels are second.
    """
    module = teacher.get_submodule(tap.module)
    told = tap.io == 'output' and tap.grid is None and isinstance(module, (nn.Linear, _ConvNd))
    return isinstance(module, nn.Linear) if told else None


def _head_of(teacher: nn.Module, path: str) -> nn.Module | None:
    """The innermost module around a path, itself included, that keeps the loss of its classes."""
    parts = path.split('.')
    for depth in range(len(parts), -1, -1):
        module = teacher.get_submodule('.'.join(parts[:depth]))
        if _loss_of(module) is not None or hasattr(module, 'use_sigmoid_cls'):
            return module
    return None


def _loss_of(head: nn.Module) -> nn.Module | None:
    found = (getattr(head, name, None) for name in _LOSSES)
    return next((loss for loss in found if isinstance(loss, nn.Module)), None)  # a method `loss` is none


def _activation_of(head: nn.Module) -> str | None:
    """'softmax' or 'sigmoid', as the head's own loss has it; None where it does not tell, or where several differ."""
    loss = _loss_of(head)
    modules = [] if loss is None else list(loss.modules())
    dice = {_activation_in(module) for module in modules if _is_dice(module)}
    others = {_activation_in(module) for module in modules if not _is_dice(module)}
    # A dice loss beside another one has a sigmoid of its own by default, whatever the head's classes meet.
    told = others - {None} or dice - {None}
    if not told and hasattr(head, 'use_sigmoid_cls'):
        return 'sigmoid' if head.use_sigmoid_cls else 'softmax'
    return told.pop() if len(told) == 1 else None


def _activation_in(loss: nn.Module) -> str | None:
    use_sigmoid = getattr(loss, 'use_sigmoid', None)
    if use_sigmoid is None:
        return _BY_CLASS.get(type(loss).__name__)
    return 'sigmoid' if use_sigmoid or getattr(loss, 'use_mask', False) else 'softmax'


def _is_dice(loss: nn.Module) -> bool:
    return type(loss).__name__ == 'DiceLoss'


def _classes_of(head: nn.Module) -> tuple[int, ...]:
    """The numbers of channels a class distribution of this head may have."""
    channels = getattr(head, 'cls_out_channels', None)
    if isinstance(channels, int):
        return (channels,)
    classes = getattr(head, 'num_classes', None)
    if not isinstance(classes, int):
        return ()
    counts = [classes, classes + 1]  # with a background class or without
    if isinstance(getattr(head, 'out_channels', None), int):
        counts.append(head.out_channels)  # one channel for two classes, in segmentation
    return tuple(dict.fromkeys(counts))
