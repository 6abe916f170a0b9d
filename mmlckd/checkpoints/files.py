"""The two formats in which torch writes checkpoints. Every size in them is compared with the bytes that are there."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .pickle_records import Name, Refused, read_pickle

MAX_INFLATED = 2**26  # bytes of all compressed records together; torch itself compresses none
MAX_RATIO = 20  # how much larger than the file they may be; pickles of weights shrink to a tenth
_MAGIC = 0x1950A86A20F9469CFC6C  # of the format before torch 1.6
_STORAGES = dict(
    Double=torch.float64,
    Float=torch.float32,
    Half=torch.float16,
    BFloat16=torch.bfloat16,
    Long=torch.int64,
    Int=torch.int32,
    Short=torch.int16,
    Char=torch.int8,
    Byte=torch.uint8,
    Bool=torch.bool,
    ComplexDouble=torch.complex128,
    ComplexFloat=torch.complex64,
)
STORAGE_TYPES = {
    **{f'torch.{module}{name}Storage': dtype for module in ('', 'cuda.') for name, dtype in _STORAGES.items()},
    'torch.storage.UntypedStorage': torch.uint8,
}


class Unreadable(Exception):
    """A file is whole, but of a kind that is not read; the message continues after the file's name."""


class Storage(NamedTuple):
    """The bytes behind tensors, or a part of them."""

    key: str
    dtype: torch.dtype
    size: int  # in bytes, of the whole
    begin: int = 0  # of the part
    end: int | None = None


def open_checkpoint(file: io.BufferedReader, allows: Callable[[str], bool]) -> ZipCheckpoint | StreamCheckpoint:
    """A checkpoint's pickle as ``root``, and the bytes of its storages by ``storage(key, size)``.

    Args:
        file: A regular file, opened for reading bytes; it must stay open while storages are read.
        allows: Whether a name may occur in the pickle.

    Raises:
        Refused: The pickle holds more than data.
        Unreadable: The file is in a format that is not read.
        Exception: It is damaged; of whichever type.
    """
    head = file.read(4)
    file.seek(0)
    if head == b'PK\x03\x04':
        return ZipCheckpoint(file, allows)
    if head[:1] == b'\x80':
        return StreamCheckpoint(file, allows)
    if tarfile.is_tarfile(file.name):
        raise Unreadable('is a tar archive, as torch wrote before 0.1.10: load it in that torch and save it anew')
    raise pickle.UnpicklingError('no format of torch begins like that')


class ZipCheckpoint:
    """The format of torch 1.6 and later: a zip archive that holds ``data.pkl``, and each storage as a record.

    The archive is read by Python's ``zipfile``, which compares check sums. Records are stored as they are, and together
    no larger than the file. Compressed ones, which other programs write, may inflate to :data:`MAX_INFLATED` bytes and
    :data:`MAX_RATIO` times the file at most.
    """

    def __init__(self, file: io.BufferedReader, allows: Callable[[str], bool]):
        self._archive = zipfile.ZipFile(file)
        self._records = self._look_through(os.fstat(file.fileno()).st_size)
        if 'byteorder' in self._records:
            _check_byte_order(self._archive.read(self._records['byteorder']) == b'little')
        self.root = read_pickle(io.BytesIO(self._archive.read(self._records['data.pkl'])), allows, _storage)

    def _look_through(self, size: int) -> dict[str, zipfile.ZipInfo]:
        found = self._archive.infolist()
        stored = [info for info in found if info.compress_type == zipfile.ZIP_STORED]
        deflated = [info for info in found if info.compress_type == zipfile.ZIP_DEFLATED]
        inflated = sum(info.file_size for info in deflated)
        if inflated > min(MAX_INFLATED, MAX_RATIO * size):
            raise Unreadable(
                f'would grow from {size} to {inflated} bytes when unpacked, and was not unpacked: '
                'save the weights uncompressed'
            )
        if len(stored) + len(deflated) < len(found) or sum(info.file_size for info in stored) > size:
            raise zipfile.BadZipFile('records that torch does not write')
        (prefix,) = (info.filename[: -len('data.pkl')] for info in found if info.filename.endswith('/data.pkl'))
        inside = [info for info in found if info.filename.startswith(prefix)]
        records = {info.filename[len(prefix) :]: info for info in inside}
        if len(records) < len(inside):
            raise zipfile.BadZipFile('two records of one name')
        if 'constants.pkl' in records:
            raise Unreadable('is a TorchScript program and no checkpoint: save the state_dict of its module')
        return records

    def storage(self, key: str, size: int) -> Tensor:
        """The bytes of a storage, which must be that many."""
        info = self._records[f'data/{key}']
        if info.file_size != size:
            raise ValueError(f'storage {key!r} has {info.file_size} bytes and not {size}')
        content = torch.empty(size, dtype=torch.uint8)
        place = 0
        with self._archive.open(info) as file:
            while chunk := file.read(2**20):  # up to the end, where zipfile compares the check sum
                content.numpy()[place : place + len(chunk)] = np.frombuffer(chunk, np.uint8)
                place += len(chunk)
        if place != size:
            raise EOFError(f'storage {key!r} ends after {place} of {size} bytes')
        return content


class StreamCheckpoint:
    """The format before torch 1.6: pickles one after the other, then the storages. Many published weights have it."""

    def __init__(self, file: io.BufferedReader, allows: Callable[[str], bool]):
        self._file = file
        self._item_sizes: dict[str, int] = {}
        magic, _, system, self.root, keys = (read_pickle(file, allows, self._outside) for _ in range(5))
        if magic != _MAGIC:
            raise pickle.UnpicklingError('torch did not write this pickle')
        _check_byte_order(dict(system)['little_endian'])
        self._places = self._find(keys)

    def _outside(self, identity: Any) -> Storage:
        storage = _storage(identity)
        self._item_sizes[storage.key] = item_size(storage.dtype)
        return storage

    def _find(self, keys: list[str]) -> dict[str, tuple[int, int]]:
        """Where each storage begins, and its bytes. They follow one another, each behind the number of its items."""
        places = {}
        end = os.fstat(self._file.fileno()).st_size
        for key in keys:
            (count,) = struct.unpack('<q', self._file.read(8))
            begin, size = self._file.tell(), count * self._item_sizes[key]
            if count < 0 or begin + size > end:
                raise EOFError(f'storage {key!r} ends behind the file')
            places[key] = begin, size
            self._file.seek(begin + size)
        return places

    def storage(self, key: str, size: int) -> Tensor:
        """The bytes of a storage, which must be that many."""
        begin, there = self._places[key]
        if there != size:
            raise ValueError(f'storage {key!r} has {there} bytes and not {size}')
        content = torch.empty(size, dtype=torch.uint8)
        self._file.seek(begin)
        if self._file.readinto(content.numpy().data) != size:
            raise EOFError(f'storage {key!r} is cut short')
        return content


def _storage(identity: Any) -> Storage:
    """What torch's identity of a storage says: type, key, device, number of items and, in the older format, a part."""
    kind, name, key, _, count, *part = identity
    if kind != 'storage' or type(name) is not Name or type(key) is not str or not _is_size(count):
        raise Refused('something outside the pickle that is no storage')
    dtype = STORAGE_TYPES[name]
    item = item_size(dtype)
    if not part or part == [None]:
        return Storage(key, dtype, count * item)
    ((_, begin, length),) = part
    if not _is_size(begin) or not _is_size(length) or begin + length > count:
        raise ValueError(f'a part of storage {key!r} ends behind it')
    return Storage(key, dtype, count * item, begin * item, (begin + length) * item)


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def item_size(dtype: torch.dtype) -> int:
    return torch.empty((), dtype=dtype).element_size()


def _check_byte_order(little: bool) -> None:
    if little is not (sys.byteorder == 'little'):
        raise Unreadable('was written on a machine of the other byte order: load it there and save it anew')
