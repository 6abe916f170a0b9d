"""The weights in a checkpoint, and how they fit a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from .reading import read_checkpoint

CONNECTORS = 'distiller.'  # what a distillation adds to a student's keys
_HEAD = re.compile(r'(\w*head|fc|classifier|cls\w*)')  # a part of a module's path, where layers have one output a class


def load_weights(model: nn.Module, source: str | Path) -> None:
    """Load a checkpoint's weights into a model; every key must match.

    ``module.`` prefixes and the connectors of a distilled student (``distiller.``) are dropped.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_checkpoint`, and where keys or shapes do not match.
    """
    weights = weights_of(read_checkpoint(source), source)
    weights = {key: value for key, value in weights.items() if not key.startswith(CONNECTORS)}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        fault = misfit(model.state_dict(), weights) or ' '.join(str(error).split())[:400]
        raise ValueError(f'checkpoint {str(source)!r} does not fit {type(model).__name__}: {fault}') from error


def weights_of(content: dict, source: str | Path) -> dict[str, Tensor]:
    """The weights in a checkpoint's content by name, without DDP's prefix ``module.``.

    Raises:
        ValueError: There are none.
    """
    if 'state_dict' not in content and 'ema_state_dict' in content:
        raise ValueError(
            f'checkpoint {str(source)!r} holds averaged weights (ema_state_dict) and no state_dict: save them as '
            'state_dict, without their prefix `module.`'
        )
    weights = content.get('state_dict', content)
    if not are_weights(weights):
        raise ValueError(
            f'checkpoint {str(source)!r} holds no weights by name: give a file that a training or an export wrote'
        )
    return {key.removeprefix('module.'): value for key, value in weights.items()}


def are_weights(value: object) -> bool:
    """Whether a value is a dict of tensors by name."""
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(weight, Tensor) for key, weight in value.items()
    )


def misfit(expected: dict[str, Tensor], weights: dict[str, Tensor]) -> str | None:
    """How weights differ from a network's, and what to do about it; None if they do not."""
    missing = [key for key in expected if key not in weights and not key.endswith('num_batches_tracked')]
    unknown = [key for key in weights if key not in expected]
    reshaped = [key for key in expected if key in weights and expected[key].shape != weights[key].shape]
    if missing:
        prefix = next((key.removesuffix(missing[0]) for key in unknown if key.endswith(f'.{missing[0]}')), '')
        if prefix and all(prefix + key in weights for key in missing):
            example = prefix + missing[0]
            return f'its keys have the prefix {prefix!r} ({example}): save the weights under their names without it'
    elif unknown and all(key.startswith('ema_') for key in unknown):
        return (
            f'beside the weights it holds averaged ones ({_some(unknown)}): '
            'save it without the keys that begin with ema_'
        )
    if not (missing or unknown or reshaped):
        return None
    if not (missing or unknown) and all(_counts_classes(key, expected[key], weights[key]) for key in reshaped):
        key = reshaped[0]
        return (
            f'{key} is {tuple(weights[key].shape)} in the file and {tuple(expected[key].shape)} in the network, '
            "and so the numbers of classes seem to differ: set num_classes to the file's, or take another file"
        )
    shapes = [f'{key} {tuple(weights[key].shape)} for {tuple(expected[key].shape)}' for key in reshaped]
    parts = (('missing', missing), ('unknown', unknown), ('of another shape', shapes))
    found = ', '.join(f'{len(keys)} {what} ({_some(keys)})' for what, keys in parts if keys)
    if all(key.startswith(CONNECTORS) for key in (*missing, *unknown, *reshaped)):
        return (
            f'the connectors to the teacher do not match, {found}: give the teacher, taps and losses that the file was '
            'trained with, or begin a new training from its weights with load_from'
        )
    return f'its keys do not match, {found}: take a checkpoint of this network and config'


def _counts_classes(key: str, expected: Tensor, weight: Tensor) -> bool:
    """Whether a weight of a head differs in its first dimension alone."""
    in_a_head = any(_HEAD.fullmatch(part) for part in key.split('.')[:-1])
    return in_a_head and not key.startswith(CONNECTORS) and expected.shape[1:] == weight.shape[1:]


def _some(keys: Sequence[str]) -> str:
    return ', '.join(keys[:3]) + (', ...' if len(keys) > 3 else '')
