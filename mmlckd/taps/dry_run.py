"""Dry runs: forwards before training that find what a user would otherwise have to write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .feature_tap import FeatureTap
from .hosts import host_of
from .preprocessing import Preprocessing
from .tap import GridError, Tap, TapError

SIZES = (16, 32, 64, 128, 224)  # in px, tried in this order


class ForwardFailed(ValueError):
    """A dry run's forward does not take an input of this size; another size may do."""


@dataclass(frozen=True)
class DryRun:
    """What a dry run found.

    Attributes:
        input_shape: (C, H, W) of its input.
        shapes: Shape of each tap's tensor, for a batch of one.
        last_calls: For each tap the number of its module's last call.
        overwritten: Taps whose tensor is overwritten in place.
        complete: Whether the forward came to its end. Where not, it failed after all taps had fired.
    """

    input_shape: tuple[int, ...]
    shapes: dict[Tap, tuple[int, ...]]
    last_calls: dict[Tap, int]
    overwritten: list[Tap]
    complete: bool

    def channels(self, tap: Tap) -> int:
        """Size of dimension 1 of a tap's tensor; 1 where it has none."""
        return self.shapes[tap][1] if len(self.shapes[tap]) > 1 else 1


def dry_run(
    model: nn.Module, taps: Sequence[Tap], input_shape: Sequence[int] | None, side: str, trained: bool = False
) -> DryRun:
    """Forwards of zeros without gradient: what the taps give, how often they fire, and what overwrites them.

    Modes, buffers and random states are as before afterwards. An in-place activation whose input is tapped is made
    out-of-place, for good, because it would overwrite the map.

    Args:
        model: The network.
        taps: Places to look at.
        input_shape: (C, H, W). None tries :func:`input_shapes` until a forward succeeds. A forward that only fails
            after all taps have fired is taken where none succeeds.
        side: 'student' or 'teacher', for messages.
        trained: Whether it will be run in training mode, so that maps overwritten only there are looked for too.

    Raises:
        ForwardFailed: The forward fails at every size, before all taps have fired.
        ValueError: A tap never fires, or does not fit what its module gives. No other size is tried then.
    """
    tried, partial = [], None
    error: ForwardFailed | None = None
    for shape in [tuple(input_shape)] if input_shape is not None else input_shapes(model):
        tried.append(shape)
        try:
            run = _dry_run(model, taps, shape, side, trained)
        except ForwardFailed as failure:
            error = failure
            continue
        if run.complete:
            return run
        partial = partial or run
    if partial is not None:
        return partial
    assert error is not None
    inputs = f'an input of {tried[0]}' if len(tried) == 1 else f'inputs of {", ".join(map(str, tried))}'
    raise ForwardFailed(
        f"the {side}'s dry run on {inputs} failed ({error}): set input_shape=(C, H, W) to a size it takes"
    ) from error.__cause__


def input_shapes(model: nn.Module) -> Iterator[tuple[int, int, int]]:
    """The (C, H, W) that a network may take, likely ones first.

    The channels are those of the data preprocessor's mean, else those of the first convolution, else 3. The sizes are
    the one that the backbone is made for, where it has one, and ``SIZES``.
    """
    mean = Preprocessing.of(model.data_preprocessor).mean if hasattr(model, 'data_preprocessor') else None
    first = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
    known = first if mean is None or mean.numel() == 1 else mean.numel()
    fixed = getattr(getattr(model, 'backbone', None), 'img_size', None)
    for channels in dict.fromkeys([known, 3]):
        for size in SIZES if fixed is None else (fixed, *SIZES):
            yield (channels, *(size if isinstance(size, (tuple, list)) else (size, size)))


def default_input_shape(model: nn.Module, size: int = 64) -> tuple[int, int, int]:
    """(C, H, W): the likeliest of :func:`input_shapes`, at a size that the backbone is made for, else the given one."""
    channels, *sides = next(input_shapes(model))
    fixed = getattr(getattr(model, 'backbone', None), 'img_size', None) is not None
    return (channels, *(sides if fixed else (size, size)))


def _dry_run(model: nn.Module, taps: Sequence[Tap], input_shape: tuple[int, ...], side: str, trained: bool) -> DryRun:
    for tap in taps:
        module = model.get_submodule(tap.module)
        if tap.io == 'input' and getattr(module, 'inplace', False):
            vars(module)['inplace'] = False
    fired = Counter()
    with _left_as_it_was(model):
        handles = [
            module.register_forward_hook(lambda *_, path=path: fired.update([path]))
            for path, module in model.named_modules()
        ]
        try:
            feats, failure = _forward(model.eval(), taps, input_shape, 1)
        finally:
            for handle in handles:
                handle.remove()
        overwritten = set(feats.overwritten)
        if trained:
            # Two images, so that batch norms can take statistics. A failure of this forward is no matter here.
            overwritten.update(_forward(model.train(), taps, input_shape, 2)[0].overwritten)
    missing = [tap for tap in taps if tap not in feats.maps]
    if missing and failure is not None:
        raise ForwardFailed(f'{type(failure).__name__}: {failure}') from failure
    if missing:
        raise ValueError(_never_fires(missing[0], feats, fired, side))
    return DryRun(
        input_shape=input_shape,
        shapes={tap: tuple(feats[tap].shape) for tap in taps},
        last_calls={tap: feats.calls[tap] - 1 for tap in taps},
        overwritten=[tap for tap in taps if tap in overwritten],
        complete=failure is None,
    )


@torch.no_grad()
def _forward(
    model: nn.Module, taps: Sequence[Tap], input_shape: tuple[int, ...], batch_size: int
) -> tuple[FeatureTap, Exception | None]:
    """What the taps saw in one forward, and the error that it ended with."""
    inputs = torch.zeros(batch_size, *input_shape, device=next(model.parameters()).device)
    feats, failure = FeatureTap(model, taps), None
    try:
        with feats:
            model(inputs, _samples(model, inputs), mode='tensor')
    except Exception as error:
        if isinstance(error, TapError) and not isinstance(error, GridError) and not model.training:
            raise
        failure = error
    return feats, failure


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Give the network its modes, buffers and trainable flags back afterwards, and torch its random state."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in modes
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False)
    ]
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)
            with torch.no_grad():
                for module, name, buffer, value in buffers:
                    setattr(module, name, buffer.copy_(value))


def _never_fires(tap: Tap, feats: FeatureTap, fired: Counter, side: str) -> str:
    inner = sorted(path for path in fired if path.startswith(tap.module + '.'))
    often = f'fires only {feats.calls[tap]} times' if feats.calls[tap] else 'never fires through a call'
    hint = f'modules inside it that do: {", ".join(inner[:6])}' if inner else 'tap another module'
    return f"the {side}'s tap {tap} {often} in a forward; {hint}"


def _samples(model: nn.Module, inputs: Tensor) -> list | None:
    """Data samples for a forward in 'tensor' mode: a two-stage detector reads the image size off them."""
    if host_of(model) != 'mmdet':
        return None
    from mmdet.structures import DetDataSample

    size = tuple(inputs.shape[2:])
    metainfo = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
    return [DetDataSample(metainfo=dict(metainfo)) for _ in inputs]
