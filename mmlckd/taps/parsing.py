"""Taps of a network as a config names them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from .dry_run import ForwardFailed, dry_run
from .tap import Tap


def parse_taps(spec: str | Sequence, model: nn.Module, side: str) -> list[Tap]:
    """Taps of one network, checked against its modules.

    Args:
        spec: A list of tap specs, in which the preset 'resnet_preact' stands for the sums before the last ReLU of each
            stage of an OpenMMLab ResNet backbone; or that preset alone. A spec with ``call='all'`` stands for one tap
            for each call of its module in a forward.
        model: The network.
        side: 'student' or 'teacher', for messages.

    Raises:
        ValueError: A path that the network lacks (the closest ones are listed), an unknown preset, or no list; or no
            forward shows how often a module fires.
    """
    if not isinstance(spec, (list, tuple)) and spec != 'resnet_preact':
        raise ValueError(f"taps is {spec!r} for the {side}: give a list of module paths or the preset 'resnet_preact'")
    taps = []
    for item in [spec] if isinstance(spec, str) else spec:
        taps += _resnet_preact(model, side) if item == 'resnet_preact' else [Tap.parse(item)]
    paths = [path for path, _ in model.named_modules() if path]
    for tap in taps:
        if tap.module not in paths:
            close = difflib.get_close_matches(tap.module, paths, n=3, cutoff=0.3)
            known = ', '.join(map(repr, close)) or 'none'
            raise ValueError(f'the {side} has no module {tap.module!r} to tap: the closest are {known}')
    return every_call(taps, model, side)


def every_call(taps: Sequence[Tap], model: nn.Module, side: str) -> list[Tap]:
    """The taps, with one for each call of its module in a forward in the place of each that says ``call='all'``.

    Raises:
        ValueError: No forward shows how often a module fires.
    """
    first = {tap: replace(tap, call=0) for tap in taps if tap.call == 'all'}
    if not first:
        return list(taps)
    try:
        last = dry_run(model, list(first.values()), None, side).last_calls
    except ForwardFailed as error:
        raise ValueError(
            f"the {side}'s tap {', '.join(map(str, first))} is for every call, and no forward shows how many there "
            f'are: give a tap for each, call=0, call=1 and so on ({error.__cause__})'
        ) from error
    counts = {tap: range(last[one] + 1) for tap, one in first.items()}
    return [each for tap in taps for each in ([replace(tap, call=n) for n in counts[tap]] if tap in counts else [tap])]


def _resnet_preact(model: nn.Module, side: str) -> list[Tap]:
    backbone = getattr(model, 'backbone', None)
    if backbone is None or not hasattr(backbone, 'res_layers'):
        raise ValueError(
            f"taps is 'resnet_preact' and the {side}'s backbone is a {type(backbone).__name__}, no OpenMMLab ResNet: "
            'list its module paths instead'
        )
    return [
        Tap(f'backbone.{stage}.{len(getattr(backbone, stage)) - 1}.relu', io='input') for stage in backbone.res_layers
    ]
