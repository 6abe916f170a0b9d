"""Dry runs: forwards before training that find what a user would otherwise have to write."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from mmengine.logging import print_log
from torch import nn

from .forwards import Seen, forward_of_zeros, left_as_it_was
from .input_shapes import LARGE, input_shapes
from .reach import carries_gradient
from .tap import Tap, TapError


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
        frozen: Taps whose gradient reaches no trainable weight; only looked for in training mode.
        class_tokens: For taps with ``grid='auto'``: how many leading tokens are left out.
    """

    input_shape: tuple[int, ...]
    shapes: dict[Tap, tuple[int, ...]]
    last_calls: dict[Tap, int]
    overwritten: list[Tap]
    complete: bool
    frozen: list[Tap]
    class_tokens: dict[Tap, int]

    def channels(self, tap: Tap) -> int:
        """Channels of a tap's tensor: the last dimension of tokens (B, N, C), else dimension 1; 1 where it has none."""
        shape = self.shapes[tap]
        if len(shape) == 3:
            return shape[2]
        return shape[1] if len(shape) > 1 else 1


def dry_run(
    model: nn.Module, taps: Sequence[Tap], input_shape: Sequence[int] | None, side: str, trained: bool = False
) -> DryRun:
    """Forwards of zeros: what the taps give, how often they fire, and what overwrites them.

    Where all taps are in ``backbone`` and ``neck``, only these run. Nothing after the last tap matters: a forward that
    fails there is taken where none succeeds.

    Modes, buffers and random states are as before afterwards. An in-place activation whose input is tapped is made
    out-of-place, for good, because it would overwrite the map.

    Args:
        model: The network.
        taps: Places to look at.
        input_shape: (C, H, W). None tries :func:`.input_shapes` until a forward succeeds.
        side: 'student' or 'teacher', for messages.
        trained: Whether it will be run in training mode. Then that mode is looked at, since some networks give other
            maps there. Evaluation mode is looked at only where the forward in training mode fails before all taps have
            fired. A warning names taps below which every weight is frozen.

    Raises:
        ForwardFailed: The forward fails at every size, before all taps have fired.
        ValueError: A tap never fires, or does not fit what its module gives, or means the last call of a module whose
            calls give maps of different sizes. No other size is tried then.
    """
    tried, partial = [], None
    error: ForwardFailed | None = None
    for shape in [tuple(input_shape)] if input_shape is not None else input_shapes(model):
        if partial is not None and max(shape[1:]) > LARGE:
            break
        tried.append(shape)
        try:
            run = _dry_run(model, taps, shape, side, trained)
        except ForwardFailed as failure:
            error = failure
            if isinstance(failure.__cause__, TypeError):  # no size will do
                break
            continue
        partial = run if run.complete else partial or run
        if run.complete:
            break
    if partial is not None:
        _tell(partial, model, side)
        return partial
    assert error is not None
    inputs = f'an input of {tried[0]}' if len(tried) == 1 else f'inputs of {", ".join(map(str, tried))}'
    remedy = 'set input_shape=(C, H, W) to a size it takes'
    if isinstance(error.__cause__, TypeError):
        remedy = (
            "its forward in mode 'tensor' does not get to all taps, so tap modules that come before, as the backbone's"
        )
    raise ForwardFailed(f"the {side}'s dry run on {inputs} failed ({error}): {remedy}") from error.__cause__


def _dry_run(model: nn.Module, taps: Sequence[Tap], input_shape: tuple[int, ...], side: str, trained: bool) -> DryRun:
    for tap in taps:
        module = model.get_submodule(tap.module)
        if tap.io == 'input' and getattr(module, 'inplace', False):
            vars(module)['inplace'] = False
    laid_out = {tap: replace(tap, grid=None) for tap in taps if tap.grid == 'auto'}
    with left_as_it_was(model):
        feats, failure, frozen = _in_its_mode(model, [*taps, *laid_out.values()], input_shape, trained)
    missing = [tap for tap in taps if tap not in feats.maps]
    if missing and failure is not None:
        raise ForwardFailed(f'{type(failure).__name__}: {failure}') from failure
    if missing:
        raise ValueError(_never_fires(missing[0], feats, side))
    for tap in taps:
        _refuse_levels(tap, feats, side)
    return DryRun(
        input_shape=input_shape,
        shapes={tap: (1, *feats[tap].shape[1:]) for tap in taps},
        last_calls={tap: feats.calls[tap] - 1 for tap in taps},
        overwritten=[tap for tap in taps if tap in feats.overwritten],
        complete=failure is None,
        frozen=[tap for tap in taps if tap in frozen],
        class_tokens={tap: _tokens(feats[plain]) - _tokens(feats[tap]) for tap, plain in laid_out.items()},
    )


def _in_its_mode(
    model: nn.Module, taps: Sequence[Tap], input_shape: tuple[int, ...], trained: bool
) -> tuple[Seen, Exception | None, set[Tap]]:
    """What a forward in training mode gives, or, where it fails or none is wanted, one in evaluation mode."""
    if trained:
        try:
            with torch.enable_grad():  # on two images, so that batch norms can take statistics
                feats, failure = forward_of_zeros(model.train(), taps, input_shape, 2)
        except TapError as error:
            raise type(error)(f'in training mode {error}') from error
        if all(tap in feats.maps for tap in taps):
            trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
            with_grad = [tap for tap in taps if tap not in feats.without_grad]
            return feats, failure, {tap for tap in with_grad if not carries_gradient(feats[tap], trainable)}
    with torch.no_grad():
        return *forward_of_zeros(model.eval(), taps, input_shape, 1), set()


def _tokens(feat: torch.Tensor) -> int:
    return feat[0].numel() // feat.shape[1 if feat.dim() == 4 else 2]


def _never_fires(tap: Tap, feats: Seen, side: str) -> str:
    inner = sorted(path for path in feats.fired if path.startswith(tap.module + '.'))
    often = f'fires only {feats.calls[tap]} times' if feats.calls[tap] else 'never fires through a call'
    hint = f'modules inside it that do: {", ".join(inner[:6])}' if inner else 'tap another module'
    return f"the {side}'s tap {tap} {often} in a forward; {hint}"


def _refuse_levels(tap: Tap, feats: Seen, side: str) -> None:
    """See that a tap of the last call does not mean one level of several, such as the coarsest of a detector's head.

    A block that uses one activation several times is no such module, although its stride may lie between two calls.

    Raises:
        TapError: Other calls of its module give maps of the same channels and of another size.
    """
    parent = tap.module.rpartition('.')[0]
    in_a_block = '.' in parent and feats.fired[parent] == 1
    if in_a_block and next(feats.model.get_submodule(tap.module).parameters(), None) is None:
        return
    maps = [shape for shape in feats.shapes[tap] if len(shape) == 4]
    if tap.call != -1 or all(shape[1] != maps[-1][1] or shape[2:] == maps[-1][2:] for shape in maps):
        return
    sizes = ', '.join(f'{shape[2]} x {shape[3]}' for shape in maps)
    raise TapError(
        f"the {side}'s tap {tap} is for the last of {feats.calls[tap]} calls, which give maps of different sizes "
        f"({sizes}): set call='all' to compare them all, or the number of one, counted from 0"
    )


def _tell(run: DryRun, model: nn.Module, side: str) -> None:
    """Say which tokens are left out, and which taps teach the network nothing."""
    for tap, count in run.class_tokens.items():
        if count:
            grid = ' x '.join(map(str, run.shapes[tap][2:]))
            message = f"the {side}'s tap {tap} lays its tokens out on {grid} positions without the first {count}"
            print_log(f'{message}, which are class tokens', 'current', logging.INFO)
    if run.frozen:
        stages = getattr(getattr(model, 'backbone', None), 'frozen_stages', -1)
        why = f'backbone.frozen_stages={stages}' if isinstance(stages, int) and stages >= 0 else 'requires_grad=False'
        print_log(
            f"the {side}'s weights are frozen up to {', '.join(map(str, run.frozen))} ({why}), so losses there train "
            'connectors only: take these taps out, or train the weights',
            'current',
            logging.WARNING,
        )
