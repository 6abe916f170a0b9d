"""What a resumed run takes from a checkpoint besides weights, and what each field must be.

A checkpoint is input, also for counters, intervals and names in it. MMEngine's ``Runner.resume`` and the hooks read the
fields of :data:`FIELDS`, and no others; RunCheckHook looks at each before they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer
from torch import Tensor

from mmlckd.checkpoints import are_weights

from .plain_values import is_count, is_list_of, is_number, is_table_of
from .random_states import is_random_state


def _is_seed(value: Any) -> bool:
    return value is None or is_count(value) and value < 2**32


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and '\0' not in value


def _is_none_or_text(value: Any) -> bool:
    return value is None or _is_text(value)


def _are_texts(value: Any) -> bool:
    return is_list_of(value, _is_text)


def _are_counts(value: Any) -> bool:
    return is_list_of(value, is_count)


def _are_states(value: Any) -> bool:
    return is_list_of(value, is_random_state) and len(value) > 0


def _is_place(value: Any) -> bool:
    return _are_counts(value) and len(value) == 2 and 0 < value[0] <= value[1]


def _is_score(value: Any) -> bool:
    """A number, also as a tensor or an array without dimensions, which some metrics return."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)) and len(np.shape(value)) == 0:
        value = value.item()
    return is_number(value)


def _is_any_number(value: Any) -> bool:
    """The norms of a diverged run are not finite."""
    return type(value) in (int, float)


def _is_reading(reading: Any) -> bool:
    """An iteration, layers with a number each, and lists of numbers."""
    if not is_table_of(reading, lambda value: True) or not is_count(reading.get('iter')):
        return False
    lists = [value for name, value in reading.items() if name not in ('iter', 'layers')]
    return is_table_of(reading.get('layers', {}), _is_any_number) and all(
        is_list_of(values, _is_any_number) for values in lists
    )


def _are_readings(value: Any) -> bool:
    return is_list_of(value, _is_reading)


def _are_gradients(value: Any) -> bool:
    return is_list_of(value, lambda each: is_table_of(each, lambda gradient: isinstance(gradient, Tensor)))


# Where there is such a field, it must be this; names end in * for all that begin so.
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'meta.epoch': (is_count, 'a whole number from 0 on'),
    'meta.iter': (is_count, 'a whole number from 0 on'),
    'meta.seed': (_is_seed, 'None or a whole number below 2 ** 32'),
    'message_hub.log_scalars.*': (lambda value: isinstance(value, HistoryBuffer), 'a log history'),
    'message_hub.resumed_keys.*': (lambda value: isinstance(value, bool), 'True or False'),
    'message_hub.runtime_info.keep_ckpt_ids': (_are_counts, 'a list of epochs or iterations'),
    'message_hub.runtime_info.last_ckpt': (_is_none_or_text, 'a path'),
    'message_hub.runtime_info.best_ckpt*': (_is_none_or_text, 'a path'),
    'message_hub.runtime_info.best_score*': (_is_score, 'a number'),
    'message_hub.runtime_info.outdated': (_are_texts, 'a list of file names'),
    'message_hub.runtime_info.unsound': (_are_texts, 'a list of file names'),
    'message_hub.runtime_info.evaluated': (is_count, 'an epoch or iteration'),
    'message_hub.runtime_info.lipschitz_history': (_are_readings, 'a list of readings'),
    'message_hub.runtime_info.lipschitz_layer_sizes': (
        lambda value: is_table_of(value, _are_counts),
        'a table of sizes',
    ),
    'ema_state_dict': (are_weights, 'a table of tensors'),
    'random_states': (_are_states, 'a list of states of random generators'),
    'epoch_random_states': (_are_states, 'a list of states of random generators'),
    'place_in_epoch': (_is_place, 'two whole numbers, the first no larger than the second'),
    'accumulated_gradients': (_are_gradients, 'a list of tables of tensors'),
}
# Looked at elsewhere: state_dict in mmlckd.checkpoints.weights, optimizer and param_schedulers in optimizer_state.
_TABLES = ('meta', 'message_hub', 'message_hub.log_scalars', 'message_hub.runtime_info', 'message_hub.resumed_keys')
_NEEDED = ('meta.epoch', 'meta.iter')


def field_fault(checkpoint: dict) -> str | None:
    """The first field that is not what it must be, and in what way; None if all are."""
    for path in _TABLES:
        found = dict(_values(checkpoint, path))
        if not is_table_of(found.get(path), lambda value: True):
            return f'{path} is not a table of names and values'
    for path, (fits, expected) in FIELDS.items():
        found = dict(_values(checkpoint, path))
        if path in _NEEDED and not found:
            return f'{path} is missing'
        for name, value in found.items():
            if not fits(value):
                text = repr(value)
                return f'{name} is {text[:60]}{"..." * (len(text) > 60)}, and must be {expected}'
    return None


def _values(checkpoint: dict, path: str) -> Iterator[tuple[str, Any]]:
    """The values at a path, each with its full name."""
    *outer, last = path.split('.', 2)
    table: Any = checkpoint
    for name in outer:
        table = table.get(name, {})
    for name, value in table.items():
        if fnmatch(str(name), last):
            yield '.'.join([*outer, str(name)]), value
