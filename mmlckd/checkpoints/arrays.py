"""numpy's arrays and numbers in checkpoints, and MMEngine's log histories, which are two arrays."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from mmengine.logging import HistoryBuffer

from .pickle_records import Made, Name, Refused, Table, arguments, sizes

if TYPE_CHECKING:
    from .rebuilding import Rebuilder

# Numbers and texts; no objects, no times, no records.
_DTYPE = re.compile(r'b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,5}')
_HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
_STATISTICS = ('min', 'max', 'current', 'mean')
# Names that may only be arguments of others.
NAMES = ('numpy.ndarray', 'numpy.dtype', 'builtins.getattr', *(f'{_HISTORY}.{name}' for name in _STATISTICS))
_ANY = object


def _dtype(record: Any) -> np.dtype:
    """``dtype('f8', False, True)`` with the state ``(3, '<', None, None, None, ...)``: the type, and the byte order."""
    if type(record) is not Made or record.name != 'numpy.dtype':
        raise Refused('an array without a dtype')
    name, *_ = arguments(record, str, _ANY, _ANY, state=True)
    state = record.state
    if type(state) is not tuple or len(state) < 5 or state[1] not in ('<', '>', '|', '=') or any(state[2:5]):
        raise Refused('a dtype with fields')
    if not _DTYPE.fullmatch(name):
        raise Refused(f'an array of dtype {name!r}')
    return np.dtype(name).newbyteorder(state[1])


def _array_of(
    rebuilder: Rebuilder, dtype: np.dtype, shape: tuple[int, ...], content: Any, order: Literal['C', 'F']
) -> np.ndarray:
    """An array from its bytes; their number must be what the shape needs."""
    content = rebuilder.value(content)
    if type(content) is str:  # how Python 2 wrote bytes
        content = content.encode('latin1')
    if type(content) is not bytes:
        raise Refused('an array that is made from something else than bytes')
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f'an array of shape {shape} has {len(content)} bytes')
    rebuilder.count_array(len(content))
    if len(shape) > 32:  # numpy's own limit
        raise ValueError(f'an array of {len(shape)} dimensions')
    array = np.frombuffer(content, dtype) if content else np.empty(0, dtype)
    if (
        dtype.kind == 'U'
        and array.size
        and array.view(np.uint32 if dtype.isnative else dtype.byteorder + 'u4').max() > 0x10FFFF
    ):
        raise ValueError('a text with characters that do not exist')
    if dtype.kind == 'b' and array.size and array.view(np.uint8).max() > 1:
        raise ValueError('truth values other than true and false')
    return array.reshape(shape, order=order).astype(dtype.newbyteorder('='))  # a copy, which may be written to


def _array(rebuilder: Rebuilder, made: Made) -> np.ndarray:
    """``_reconstruct(ndarray, (0,), b'b')`` with the state ``(1, shape, dtype, is_fortran, bytes)``."""
    kind, _, _ = arguments(made, Name, tuple, _ANY, state=True)
    if kind != 'numpy.ndarray' or type(made.state) is not tuple or len(made.state) != 5:
        raise Refused('an array with another state than numpy saves')
    _, shape, dtype, fortran, content = made.state
    return _array_of(rebuilder, _dtype(dtype), sizes(shape), content, 'F' if fortran is True else 'C')


def _number(rebuilder: Rebuilder, made: Made) -> Any:
    """``scalar(dtype, bytes)``, as a number or a text of Python's."""
    dtype, content = arguments(made, Made, _ANY)
    return _array_of(rebuilder, _dtype(dtype), (), content, 'C').item()


def _history(rebuilder: Rebuilder, made: Made) -> HistoryBuffer:
    """A log history from exactly its fields.

    Pickles look up its statistics by ``getattr``. Here they are those of the class.
    """
    arguments(made, state=True)
    if type(made.state) is not Table or not all(len(pair) == 2 and type(pair[0]) is str for pair in made.state):
        raise Refused('a log history without fields')
    fields = dict(made.state)
    statistics = fields.pop('statistics_methods', Table())
    if set(fields) != {'max_length', '_log_history', '_count_history'} or not _are_statistics(statistics):
        raise Refused('a log history with other fields than its own')
    log, count = (rebuilder.value(fields[name]) for name in ('_log_history', '_count_history'))
    length = rebuilder.value(fields['max_length'])
    for array in (log, count):
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in 'biuf':
            raise Refused('a log history of something else than numbers')
    if type(length) is not int or not len(log) == len(count) <= length:
        raise Refused('a log history of another length than it may have')
    return HistoryBuffer(log, count, length)


def _are_statistics(record: Any) -> bool:
    """Whether a table names statistics of the class: ``HistoryBuffer.min``, or ``getattr(HistoryBuffer, "min")``."""
    if type(record) is not Table:
        return False
    for _, method in record:
        if type(method) is Made and method.name == 'builtins.getattr':
            owner, name = arguments(method, Name, str)
            method = f'{owner}.{name}'
        if method not in [f'{_HISTORY}.{name}' for name in _STATISTICS]:
            return False
    return True


MAKERS = {
    'numpy.core.multiarray._reconstruct': _array,
    'numpy.core.multiarray.scalar': _number,
    _HISTORY: _history,
}
