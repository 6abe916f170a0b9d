"""Dry runs: one forward before training that finds what a user would otherwise have to write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .feature_tap import FeatureTap
from .tap import Tap


class ForwardFailed(ValueError):
    """A dry run's forward does not take an input of this size; another size may do."""


@dataclass(frozen=True)
class DryRun:
    """What a dry run found, by tap: shapes of a batch of one, number of the last call, and maps overwritten in place."""

    shapes: dict[Tap, tuple[int, ...]]
    last_calls: dict[Tap, int]
    overwritten: list[Tap]


@torch.no_grad()
def dry_run(model: nn.Module, taps: Sequence[Tap], input_shape: Sequence[int], side: str) -> DryRun:
    """One forward of zeros in evaluation mode: what the taps give, how often they fire, and what overwrites them.

    The training mode and all statistics are as before afterwards. An in-place activation whose input is tapped is
    made out-of-place, for good: it would overwrite the map.

    Raises:
        ForwardFailed: The forward fails at this input size.
        ValueError: A tap never fires, or gives no tensor.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for tap in taps:
        module = model.get_submodule(tap.module)
        if tap.io == 'input' and getattr(module, 'inplace', False):
            module.inplace = False
    inputs = torch.zeros(1, *input_shape, device=next(model.parameters()).device)
    fired = Counter()
    handles = [
        module.register_forward_hook(lambda *_, path=path: fired.update([path]))
        for path, module in model.named_modules()
    ]
    try:
        with FeatureTap(model, taps) as feats:
            model(inputs, _samples(model, input_shape), mode='tensor')
    except ValueError:
        raise
    except Exception as error:
        raise ForwardFailed(
            f"the {side}'s dry run on an input of {tuple(input_shape)} failed ({type(error).__name__}: {error}): "
            'set input_shape=(C, H, W) to a size it takes'
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    for tap in taps:
        if tap not in feats.maps:
            inner = sorted(path for path in fired if path.startswith(tap.module + '.'))
            often = f'fires only {feats.calls[tap]} times' if feats.calls[tap] else 'never fires through a call'
            hint = f'modules inside it that do: {", ".join(inner[:6])}' if inner else 'tap another module'
            raise ValueError(f"the {side}'s tap {tap} {often} in a forward; {hint}")
    return DryRun(
        shapes={tap: tuple(feats[tap].shape) for tap in taps},
        last_calls={tap: feats.calls[tap] - 1 for tap in taps},
        overwritten=[tap for tap in taps if feats[tap]._version != feats.versions[tap]],
    )


def _samples(model: nn.Module, input_shape: Sequence[int]) -> list | None:
    """Data samples for a forward in 'tensor' mode: a two-stage detector reads the image size off them."""
    if not type(model).__module__.startswith('mmdet'):
        return None
    from mmdet.structures import DetDataSample

    size = tuple(input_shape[1:])
    return [
        DetDataSample(
            metainfo=dict(
                img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0)
            )
        )
    ]


def default_input_shape(model: nn.Module, size: int = 64) -> tuple[int, int, int]:
    """(C, H, W): the first convolution's channels, at the size a backbone is fixed to or else the given one."""
    channels = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
    size = getattr(getattr(model, 'backbone', None), 'img_size', size)
    return (channels, *(size if isinstance(size, (tuple, list)) else (size, size)))
