"""What a checkpoint holds, rebuilt from its records as plain values.

:data:`MAKERS` is the allow-list: each name that a checkpoint may contain, and the function of this package that makes a
plain value of the record of its call, after a look at every argument. Nothing that the file names is called itself.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import arrays, tensors
from .files import STORAGE_TYPES, Storage, StreamCheckpoint, ZipCheckpoint
from .pickle_records import Made, Members, Name, Refused, Table, arguments

MAX_DEPTH = 100  # of containers in one another
_ATOMS = (type(None), bool, int, float, str, bytes)
_UNFINISHED = object()


class Rebuilder:
    """Makes plain values from the records of one checkpoint.

    Args:
        source: The opened checkpoint.
        size: Bytes of its file, which bounds what is made from it.
        device: Where tensors go.
    """

    def __init__(self, source: ZipCheckpoint | StreamCheckpoint, size: int, device: str | torch.device):
        self.source = source
        self.size = size
        self.device = device
        self._array_bytes = 0
        self._storages: dict[str, Tensor] = {}
        self._values: dict[int, Any] = {}  # by the records' ids: what is one object in the file stays one
        self._depth = 0

    def value(self, record: Any) -> Any:
        """The plain value of a record: an atom, a container of plain values, a tensor, an array, or a log history.

        Raises:
            Refused: The record asks for something else.
        """
        if type(record) in _ATOMS:
            return record
        if id(record) in self._values:
            value = self._values[id(record)]
            if value is _UNFINISHED:
                raise Refused('a container that contains itself')
            return value
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Refused(f'containers in one another, more than {MAX_DEPTH} deep')
        self._values[id(record)] = _UNFINISHED
        self._values[id(record)] = value = self._made(record)
        self._depth -= 1
        return value

    def _made(self, record: Any) -> Any:
        kind = type(record)
        if kind is list:
            return [self.value(item) for item in record]
        if kind is tuple:
            return tuple(self.value(item) for item in record)
        if kind is Table:
            return self.table(record)
        if kind is Members:
            return {self.key(item) for item in record}
        if kind is Name and record in tensors.DTYPES:
            return tensors.DTYPES[record]
        if kind is Made and record.name in MAKERS:
            return MAKERS[record.name](self, record)
        if kind is Made or kind is Name:
            raise Refused(record.name if kind is Made else record)
        raise Refused(f'a {kind.__name__} by itself')

    def table(self, pairs: Table) -> dict:
        return {self.key(key): self.value(value) for key, value in pairs}

    def key(self, record: Any) -> Any:
        """The key of a dict, or the member of a set: an atom, or a tuple of atoms."""
        value = self.value(record)
        if type(value) not in _ATOMS and not (type(value) is tuple and all(type(item) in _ATOMS for item in value)):
            raise Refused(f'a {type(value).__name__} as a key')
        return value

    def storage(self, storage: Storage) -> Tensor:
        """The bytes of a storage, on the device. Each is read once: tensors that share it in the file share it here."""
        if storage.key not in self._storages:
            self._storages[storage.key] = self.source.storage(storage.key, storage.size).to(self.device)
        content = self._storages[storage.key]
        if len(content) != storage.size:
            raise ValueError(f'storage {storage.key!r} has two sizes')
        return content[storage.begin : storage.end]

    def count_array(self, size: int) -> None:
        """Note that an array of so many bytes is made: all of them together may not exceed the file."""
        self._array_bytes += size
        if self._array_bytes > self.size:
            raise Refused('arrays that are larger than the file')


def _bytes(rebuilder: Rebuilder, made: Made) -> bytes:
    """How pickles of protocol 2 write bytes: ``_codecs.encode(text, 'latin1')``, and ``bytes()`` for none."""
    if made.name == 'builtins.bytes':
        arguments(made)
        return b''
    text, encoding = arguments(made, str, str)
    if encoding not in ('latin1', 'latin-1'):
        raise Refused(f'a text in the encoding {encoding!r}')
    return text.encode('latin1')


def _ordered_dict(rebuilder: Rebuilder, made: Made) -> OrderedDict:
    """An OrderedDict of its items. Its only attribute may be torch's ``_metadata`` of state dicts, as plain values."""
    pairs = made.args[0] if len(made.args) == 1 else []
    if len(made.args) > 1 or not isinstance(pairs, list) or not all(len(pair) == 2 for pair in pairs):
        raise Refused('an OrderedDict that is made from something else than pairs')
    result = OrderedDict(rebuilder.table(Table([*pairs, *made.items])))
    if made.state is not None:
        state = rebuilder.value(made.state)
        if not isinstance(state, dict) or set(state) != {'_metadata'} or not _is_metadata(state['_metadata']):
            raise Refused('an OrderedDict with attributes')
        result._metadata = state['_metadata']
    return result


def _is_metadata(value: Any) -> bool:
    """Whether it is what torch notes of a state dict's modules: for each, a dict of atoms such as its version."""
    return isinstance(value, dict) and all(
        isinstance(notes, dict) and all(type(note) in _ATOMS for note in notes.values()) for notes in value.values()
    )


def _counter(rebuilder: Rebuilder, made: Made) -> Counter:
    (pairs,) = arguments(made, Table)
    counts = rebuilder.table(pairs)
    if not all(type(count) is int for count in counts.values()):
        raise Refused('a Counter of something else than numbers')
    return Counter(counts)


def _set(rebuilder: Rebuilder, made: Made) -> set:
    (members,) = arguments(made, list)
    return {rebuilder.key(member) for member in members}


def _slice(rebuilder: Rebuilder, made: Made) -> slice:
    number = (int, type(None))
    return slice(*arguments(made, number, number, number))


MAKERS: dict[str, Callable[[Rebuilder, Made], Any]] = {
    '_codecs.encode': _bytes,
    'builtins.bytes': _bytes,
    'builtins.set': _set,
    'builtins.slice': _slice,
    'collections.Counter': _counter,
    'collections.OrderedDict': _ordered_dict,
    **arrays.MAKERS,
    **tensors.MAKERS,
}
_INSIDE_OTHERS = {*STORAGE_TYPES, *tensors.DTYPES, *arrays.NAMES, *tensors.NAMES}


def allows(name: str) -> bool:
    """Whether a checkpoint may contain a name: it is made into a plain value, or is an argument of one that is."""
    return name in MAKERS or name in _INSIDE_OTHERS
