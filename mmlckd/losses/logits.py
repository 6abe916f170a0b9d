"""How losses read logits: where the classes are, and which activation they meet."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .heads import Layout, layout_at

ACTIVATIONS = ('auto', 'softmax', 'sigmoid')
_UNKNOWN = ('the logits', Layout())


class LogitsReader:
    """Brings logits of any layout to (B, K, ...), with the help of what the teacher's heads tell.

    Logits are (B, K), tokens or queries (B, N, K), or maps (B, K, H, W). In what a linear layer gives, the classes are
    last in any number of dimensions; in what a convolution gives, they are second.

    Args:
        activation: 'softmax', 'sigmoid', or 'auto': that of the teacher's head. It is read from the loss (``loss_cls``,
            ``loss_decode``, ``loss_module`` or ``loss``) of the tapped module, or else of the modules around it, from
            inside out. Where no teacher is attached, 'auto' is 'softmax'.
        num_classes: Channels of one class distribution, where the channels are anchors x classes, anchors first. A
            softmax's background class counts. None: found from that head's ``cls_out_channels``, ``num_classes`` and
            ``num_base_priors``; without a head, all channels are one distribution.

    Raises:
        ValueError: An option is wrong.

    Source: this project.
    """

    def __init__(self, activation: str = 'auto', num_classes: int | None = None):
        if activation not in ACTIVATIONS:
            raise ValueError(f'activation is {activation!r}: choose one of {", ".join(map(repr, ACTIVATIONS))}')
        if num_classes is not None and num_classes < 1:
            raise ValueError(f'num_classes is {num_classes}: give the channels of one class distribution, or None')
        self.activation = activation
        self.num_classes = num_classes
        self._found: list[tuple[str, Layout]] = []  # one a tap: its name, and what the teacher tells of it

    def attach(self, teacher: nn.Module, taps: Sequence) -> None:
        """Read activations, classes and anchors off the teacher's heads.

        Raises:
            ValueError: ``activation`` is 'auto' and a head does not tell it.
        """
        self._found = [(f'teacher tap {tap}', layout_at(teacher, tap)) for tap in taps]
        for name, layout in self._found:
            if self.activation == 'auto' and layout.activation is None:
                raise ValueError(
                    f"activation is 'auto' and no loss around {name} tells whether its logits meet a softmax or a "
                    "sigmoid: set activation='softmax' or activation='sigmoid'"
                )

    def activation_at(self, index: int) -> str:
        """'softmax' or 'sigmoid': what the logits of tap number ``index`` meet."""
        return (self.told(index) or 'softmax') if self.activation == 'auto' else self.activation

    def told(self, index: int) -> str | None:
        """What the teacher's head tells of tap number ``index``: 'softmax', 'sigmoid', or None where it does not."""
        return self._at(index)[1].activation

    def check(self, teacher_feats: Sequence[Tensor]) -> None:
        """See that a teacher's logits fit what its heads tell.

        Raises:
            ValueError: They do not.
        """
        for index, logits in enumerate(teacher_feats):
            classes = self.distributions(logits, index).shape[1]
            if classes == 1 and self._found and self.activation_at(index) == 'softmax':
                raise ValueError(
                    f'{self._at(index)[0]} gives one class, whose softmax is always 1, so the loss would be 0: '
                    "set activation='sigmoid'"
                )

    def distributions(self, logits: Tensor, index: int) -> Tensor:
        """(B, K, ...) view of the logits of tap number ``index``: classes, then anchors (if several), then positions.

        Raises:
            ValueError: The channels are not explained by the head's classes and anchors, or by ``num_classes``.
        """
        name, layout = self._at(index)
        logits = classes_second(logits, layout.classes_last)
        channels = logits.shape[1]
        classes = self.num_classes or layout.num_classes(channels, name)
        if channels % classes:
            raise ValueError(
                f'num_classes is {classes}, which does not divide the {channels} channels of {name}: '
                'give the channels of one class distribution'
            )
        return logits if channels == classes else logits.unflatten(1, (-1, classes)).transpose(1, 2)

    def _at(self, index: int) -> tuple[str, Layout]:
        return self._found[index] if self._found else _UNKNOWN


def classes_second(logits: Tensor, classes_last: bool | None = None) -> Tensor:
    """(B, K, ...) view of logits (B, K), tokens (B, N, K) or maps (B, K, H, W).

    Args:
        logits: The logits.
        classes_last: Whether the classes are last; None: they are in three dimensions, and second otherwise.

    Raises:
        ValueError: There are fewer than two dimensions.
    """
    if logits.dim() < 2:
        raise ValueError(f'the logits are {tuple(logits.shape)}: (B, K), (B, N, K) or (B, K, H, W) is needed')
    last = logits.dim() == 3 if classes_last is None else classes_last
    return logits.movedim(-1, 1) if last else logits
