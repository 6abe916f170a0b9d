"""The pickle inside a checkpoint, read as a list of instructions that are recorded and not followed.

A pickle is a program: its opcodes push values, and ask for functions to be called with them. The machine here knows the
opcodes that checkpoints need. It calls nothing and imports nothing: where a pickle asks for a call, it writes down
which, and :mod:`mmlckd.checkpoints.rebuilding` decides what to make of it. Only names on the allow-list get that far.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

MAX_OPCODES = 20_000_000  # half a minute and 8 GB at most; 100,000 readings of 20 norms have 5 million
MAX_BITS = 128  # of an integer: the longest that torch writes has 77


class Refused(pickle.UnpicklingError):
    """A checkpoint asks for something that is not plain data; the message says for what."""


class Name(str):
    """A function, class or constant that a pickle names, as ``module.name``."""


class Table(list):
    """The pairs of a dict, in their order."""

    __slots__ = ()


class Members(list):
    """The members of a set."""

    __slots__ = ()


class Made:
    """What a pickle asks a call of ``name`` to make: the arguments, and the items and the state that follow."""

    __slots__ = ('args', 'items', 'name', 'state')

    def __init__(self, name: Name, args: tuple):
        self.name, self.args, self.items, self.state = name, args, Table(), None


class _Machine:
    """The stack and the memo of a pickle, and what each opcode does to them."""

    def __init__(self, allows: Callable[[str], bool], outside: Callable[[Any], Any]):
        self.allows = allows
        self.outside = outside
        self.stack: list = []
        self.below: list[list] = []  # what lies under each mark
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        if type(value) is int and value.bit_length() > MAX_BITS:
            raise Refused(f'a number of {value.bit_length()} bits')
        self.stack.append(value)

    def mark(self, _) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list:
        popped, self.stack = self.stack, self.below.pop()
        return popped

    def pop(self, count: int) -> list:
        if len(self.stack) < count:
            raise pickle.UnpicklingError('the stack is empty')
        popped = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return popped

    def name(self, module: str, name: str) -> None:
        full = f'{_RENAMED.get(module, module)}.{name}'.replace('numpy._core.', 'numpy.core.', 1)
        if not self.allows(full):
            raise Refused(full)
        self.stack.append(Name(full))

    def call(self, _) -> None:
        name, args = self.pop(2)
        if type(name) is not Name or type(args) is not tuple:
            raise Refused(f'a call of a {type(name).__name__}')
        self.stack.append(Made(name, args))

    def extend(self, values: list) -> None:
        target = self.stack[-1]
        if type(target) not in (list, Members):
            raise Refused('items that are appended to something else than a list')
        target.extend(values)

    def set_items(self, values: list) -> None:
        target = self.stack[-1]
        pairs = target.items if type(target) is Made else target
        if type(pairs) is not Table:
            raise Refused('items that are set in something else than a dict')
        pairs.extend(zip(values[::2], values[1::2]))

    def build(self, _) -> None:
        (state,) = self.pop(1)
        target = self.stack[-1]
        if type(target) is not Made or target.state is not None:
            raise Refused('attributes of something that has none')
        target.state = state

    def memorise(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]


_RENAMED = {'__builtin__': 'builtins', 'copy_reg': 'copyreg', 'torch.tensor': 'torch._tensor'}
_VALUES = (
    'BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 '
    'BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8'
)
# What each opcode does, to a machine and with the opcode's argument. The rest are refused: text forms that torch does
# not write, and what would make a call in another way.
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    'PROTO': lambda machine, version: None,
    'FRAME': lambda machine, size: None,
    'STOP': lambda machine, _: None,
    'NONE': lambda machine, _: machine.push(None),
    'NEWTRUE': lambda machine, _: machine.push(True),
    'NEWFALSE': lambda machine, _: machine.push(False),
    **dict.fromkeys(_VALUES.split(), _Machine.push),
    'EMPTY_LIST': lambda machine, _: machine.push([]),
    'EMPTY_DICT': lambda machine, _: machine.push(Table()),
    'EMPTY_SET': lambda machine, _: machine.push(Members()),
    'EMPTY_TUPLE': lambda machine, _: machine.push(()),
    'TUPLE': lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    'TUPLE1': lambda machine, _: machine.push(tuple(machine.pop(1))),
    'TUPLE2': lambda machine, _: machine.push(tuple(machine.pop(2))),
    'TUPLE3': lambda machine, _: machine.push(tuple(machine.pop(3))),
    'MARK': _Machine.mark,
    'POP': lambda machine, _: machine.pop(1),
    'POP_MARK': lambda machine, _: machine.pop_to_mark(),
    'DUP': lambda machine, _: machine.push(machine.stack[-1]),
    'APPEND': lambda machine, _: machine.extend(machine.pop(1)),
    'APPENDS': lambda machine, _: machine.extend(machine.pop_to_mark()),
    'ADDITEMS': lambda machine, _: machine.extend(machine.pop_to_mark()),
    'SETITEM': lambda machine, _: machine.set_items(machine.pop(2)),
    'SETITEMS': lambda machine, _: machine.set_items(machine.pop_to_mark()),
    'BINGET': lambda machine, place: machine.push(machine.memo[place]),
    'LONG_BINGET': lambda machine, place: machine.push(machine.memo[place]),
    'BINPUT': _Machine.memorise,
    'LONG_BINPUT': _Machine.memorise,
    'MEMOIZE': _Machine.memorise,
    'GLOBAL': lambda machine, names: machine.name(*names.split(' ', 1)),
    'STACK_GLOBAL': lambda machine, _: machine.name(*machine.pop(2)),
    'REDUCE': _Machine.call,
    'NEWOBJ': _Machine.call,
    'BUILD': _Machine.build,
    'BINPERSID': lambda machine, _: machine.push(machine.outside(*machine.pop(1))),
}


def read_pickle(file: BinaryIO, allows: Callable[[str], bool], outside: Callable[[Any], Any]) -> Any:
    """Read the pickle at a file's position, up to its end.

    Args:
        file: Opened for reading bytes.
        allows: Whether a name may occur.
        outside: The record of something that lies outside the pickle, from the identity that the pickle has for it.

    Returns:
        Numbers, strings, bytes, None, lists, tuples, and the records of this module in the place of everything else.

    Raises:
        Refused: It names something that ``allows`` does not, or has an opcode that checkpoints do not need.
        Exception: It is damaged; of whichever type.

    Source: this project, after the pickle machine of CPython's ``pickletools`` and ``pickle``.
    """
    machine = _Machine(allows, outside)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        action = _ACTIONS.get(opcode.name)
        if action is None:
            raise Refused(f'the opcode {opcode.name}')
        if count > MAX_OPCODES:
            raise Refused(f'more than {MAX_OPCODES} opcodes')
        action(machine, argument)
    (root,) = machine.pop(1)
    return root


def arguments(made: Made, *kinds: type | tuple[type, ...], state: bool = False) -> tuple:
    """The arguments of a recorded call, if they are as many as ``kinds`` and each is of its kind.

    Raises:
        Refused: They are not; or the call has items; or it has a state and none is asked for, or the reverse.
    """
    fits = len(made.args) == len(kinds) and all(map(isinstance, made.args, kinds))
    if not fits or made.items or (made.state is not None) is not state:
        raise Refused(f'{made.name} with other arguments than it is saved with')
    return made.args


def sizes(record: Any) -> tuple[int, ...]:
    """A recorded shape, or strides: a tuple of numbers, none of them negative.

    Raises:
        Refused: It is something else.
    """
    if type(record) is Made and record.name == 'torch.Size':
        (record,) = arguments(record, tuple)
    if type(record) is not tuple or not all(type(size) is int and 0 <= size < 2**63 for size in record):
        raise Refused('a size that is no tuple of numbers')
    return record
