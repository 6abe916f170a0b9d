"""What the traceback of an error tells: where it was raised, whether on purpose, and what was being built."""

from __future__ import annotations

import re
import textwrap
import traceback
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from mmlckd.config import SHIPPED

_PACKAGE = Path(__file__).resolve().parents[1]
_OWN = {str(_PACKAGE), str((SHIPPED / 'tools').resolve())}
_HOSTS = {'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'torch'}
_REGISTRY = 'mmengine/registry/build_functions.py'
_CHECKER = 'mmlckd/validation/arguments.py'


class Place(NamedTuple):
    """A line of a traceback."""

    file: str
    line: str

    @property
    def host(self) -> str | None:
        """The library that the line belongs to."""
        return next((part for part in Path(self.file).parts if part in _HOSTS), None)

    @property
    def is_ours(self) -> bool:
        return any(str(folder) in _OWN for folder in Path(self.file).resolve().parents)

    def raises(self, error: BaseException) -> bool:
        """Whether the error was raised here on purpose."""
        asserts = self.line.startswith('assert') and isinstance(error, AssertionError)
        return self.line.startswith('raise ') or asserts


class Failure:
    """An error, with what its traceback tells.

    An error in a data loader's worker process arrives as the text of its traceback, and is read from there.

    Args:
        error: Any exception that was caught.

    Source: this project.
    """

    def __init__(self, error: BaseException):
        self.error = error
        self.of_a_worker = re.match(r'Caught \w+ in DataLoader worker process', str(error)) is not None

    @cached_property
    def frames(self) -> list[FrameType]:
        """The frames it passed, outermost first."""
        return [frame for frame, _ in traceback.walk_tb(self.error.__traceback__)]

    @cached_property
    def places(self) -> list[Place]:
        """Their lines."""
        if self.of_a_worker:
            found = re.findall(r'File "(.+)", line \d+, in .+\n +(.+)', str(self.error))
            return [Place(*match) for match in found]
        return [Place(line.filename, line.line or '') for line in traceback.extract_tb(self.error.__traceback__)]

    @cached_property
    def text(self) -> str:
        """The whole message, on one line."""
        error = self.error
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        if self.of_a_worker:
            text = re.sub(r'^[\w.]+: ', '', text.strip().splitlines()[-1])
        return ' '.join(text.split())

    @property
    def message(self) -> str:
        """The message, cut where it is very long."""
        return textwrap.shorten(self.text, 300, placeholder=' ...')

    @property
    def is_meant(self) -> bool:
        """Whether somebody raised it on purpose, by ``raise`` or ``assert``."""
        return bool(self.places) and self.places[-1].raises(self.error)

    @property
    def host(self) -> str | None:
        """The library whose line raised it."""
        return self.places[-1].host if self.places else None

    @property
    def is_of_the_call(self) -> bool:
        """Whether it comes from calling the class of a config entry, not from inside that class."""
        return bool(self.places) and (self.host == 'mmengine' or self.places[-1].file.endswith(_CHECKER))

    @cached_property
    def entry(self) -> dict[str, Any]:
        """What MMEngine's registry knew of the entry that it was building: ``registry``, ``args``, ``obj_cls``."""
        building = [frame.f_locals for frame in self.frames if frame.f_code.co_filename.endswith(_REGISTRY)]
        return building[-1] if building else {}

    @property
    def kind(self) -> str | None:
        """The type of that entry, as the config has it."""
        kind = self.entry.get('obj_type')
        return kind if isinstance(kind, (str, type(None))) else getattr(kind, '__name__', str(kind))

    @property
    def before(self) -> BaseException | None:
        """The error that this one reports: its cause or, where it was raised on purpose, the one being dealt with."""
        return self.error.__cause__ or (self.error.__context__ if self.is_meant else None)
