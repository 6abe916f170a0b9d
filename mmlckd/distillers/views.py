"""Second views of a batch: images near those of the batch, at which student and teacher are compared too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmlckd.losses import DistillationLoss
from mmlckd.registry import MODELS
from mmlckd.taps import Borders

VIEWS = ('first', 'second', 'both')


class KeepsPadding:
    """Base of the views that leave padding as it is."""

    borders = Borders(nn.Identity(), '')

    def watch(self, preprocessor: nn.Module) -> None:
        """Take padding to be as the student's data preprocessor makes it."""
        self.borders = Borders(preprocessor, '')

    def inside(self, inputs: Tensor, data_samples: Sequence | None) -> Tensor | None:
        """(B, 1, H, W), bool: which positions are image and no padding; None if all are. Hosts pad below and right."""
        full = tuple(inputs.shape[2:])
        sizes = self.borders.likely_sizes(inputs, data_samples)
        if all(size == full for size in sizes):
            return None
        ends = torch.tensor(sizes, device=inputs.device)
        rows, columns = (torch.arange(length, device=inputs.device) for length in full)
        return ((rows < ends[:, :1]).unsqueeze(2) & (columns < ends[:, 1:]).unsqueeze(1)).unsqueeze(1)


@MODELS.register_module()
class MixedView(KeepsPadding):
    """Part of the way to another image of the batch: x' = x + part * (other - x).

    The directions are those of the data, so there is no scale to choose. Where images were padded to one size, only
    what is image in both is mixed; the rest of x' is x.

    Args:
        max_part: The part is drawn for each image, evenly from 0 to this; in (0, 1].

    Raises:
        ValueError: ``max_part`` is out of range.

    Source: this project. The mixing is that of mixup (Zhang et al., ICLR 2018), without its labels.
    """

    def __init__(self, max_part: float = 0.5):
        if not 0 < max_part <= 1:
            raise ValueError(f'max_part is {max_part}: give a number above 0, up to 1')
        self.max_part = max_part

    def __call__(self, inputs: Tensor, data_samples: Sequence | None = None) -> Tensor:
        """(B, C, H, W), preprocessed, to the same. A batch of one image has no other and stays as it is."""
        count = len(inputs)
        steps = torch.randint(1, max(count, 2), (count,), device=inputs.device)
        others = (torch.arange(count, device=inputs.device) + steps) % max(count, 1)
        part = self.max_part * torch.rand(count, 1, 1, 1, device=inputs.device, dtype=inputs.dtype)
        moves = part * (inputs[others] - inputs)
        inside = self.inside(inputs, data_samples)
        return inputs + (moves if inside is None else moves * (inside & inside[others]))


@MODELS.register_module()
class NoisyView(KeepsPadding):
    """The image with Gaussian noise.

    Args:
        std: Standard deviation of the noise, in units of the preprocessed input, positive.

    Raises:
        ValueError: ``std`` is out of range.

    Source: this project.
    """

    def __init__(self, std: float = 0.3):
        if not std > 0:
            raise ValueError(f'std is {std}: give a positive number')
        self.std = std

    def __call__(self, inputs: Tensor, data_samples: Sequence | None = None) -> Tensor:
        """(B, C, H, W), preprocessed, to the same; padding stays as it is."""
        noise, inside = self.std * torch.randn_like(inputs), self.inside(inputs, data_samples)
        return inputs + (noise if inside is None else noise * inside)


def second_view(view: Callable, inputs: Tensor, data_samples: Sequence | None) -> Tensor:
    """What a view makes of a batch.

    Raises:
        ValueError: It is no batch like the first, or the view changed the first one in place.
    """
    name, before = type(view).__name__, inputs._version
    second = view(inputs, data_samples)
    if inputs._version != before:
        raise ValueError(f'view {name} changed the batch that it is given in place: let it return a new tensor')
    if not isinstance(second, Tensor):
        raise ValueError(f'view {name} returns a {type(second).__name__}: let it return a tensor like its input')
    for what in ('shape', 'dtype', 'device'):
        ours, theirs = getattr(second, what), getattr(inputs, what)
        if ours != theirs:
            ours, theirs = (tuple(each) if what == 'shape' else each for each in (ours, theirs))
            raise ValueError(
                f'view {name} returns a tensor with {what} {ours} for a batch with {what} {theirs}: let it keep the '
                f'{what} of its input'
            )
    return second


def input_change(first: Tensor, second: Tensor, pixel_std: Tensor | None) -> Tensor:
    """(B,): how far two views (B, C, H, W) are apart, in pixel values; ``pixel_std`` is what pixels were divided by."""
    change = (second - first).to(torch.promote_types(first.dtype, torch.float32))
    if pixel_std is not None:
        change = change * pixel_std.to(change).view(-1, 1, 1)
    return change.flatten(1).norm(dim=1)


def choose_views(name: str, loss: nn.Module, asked: str | None) -> str:
    """Which views an entry of ``losses`` compares: what it asks for, else what its loss is made for.

    Raises:
        ValueError: There is no such choice, or the loss needs both views.
    """
    wanted = loss.views if isinstance(loss, DistillationLoss) else 'first'
    for field, value in ((f'losses.{name}.views', asked), (f'{type(loss).__name__}.views', wanted)):
        if value not in (None, *VIEWS):
            raise ValueError(f'{field} is {value!r}: choose one of {", ".join(map(repr, VIEWS))}')
    if asked is None:
        return wanted
    if wanted == 'both' and asked != 'both':
        raise ValueError(f'losses.{name}.views is {asked!r}, and {type(loss).__name__} needs both: leave `views` out')
    return asked


def check_views(view: object, views: dict[str, str]) -> None:
    """See that there is a second view where some loss looks at it, and only there; ``views`` are those of each loss.

    Raises:
        ValueError: There is not, or it cannot be called.
    """
    if view is not None and not callable(view):
        raise ValueError(
            f"view is a {type(view).__name__}, which cannot be called: give one such as dict(type='mmlckd.MixedView')"
        )
    looking = [name for name, chosen in views.items() if chosen != 'first']
    if looking and view is None:
        raise ValueError(
            f"losses.{looking[0]} looks at a second view, and there is none: set view=dict(type='mmlckd.MixedView')"
        )
    if view is not None and not looking:
        raise ValueError("view is set, and no loss looks at the second view: give one views='both', or leave view out")
