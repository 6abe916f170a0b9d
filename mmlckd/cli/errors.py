"""Which errors are the user's to mend, and the one sentence that says so."""

from __future__ import annotations

import difflib
import errno
import inspect
import re
import textwrap
import traceback
from pathlib import Path
from typing import NamedTuple

from mmengine.registry import OPTIMIZERS, Registry

_PACKAGE = Path(__file__).resolve().parents[1]
_OWN = {str(_PACKAGE), str(_PACKAGE.parent / 'tools')}
_HOSTS = {'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'torch'}
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_LOADING = 'transforms/loading.py'  # of mmcv and of each host


class Place(NamedTuple):
    """A line of a traceback."""

    file: str
    line: str

    @property
    def folders(self) -> set:
        return {str(folder) for folder in Path(self.file).resolve().parents}

    @property
    def host(self) -> str | None:
        return next((part for part in Path(self.file).parts if part in _HOSTS), None)

    def meant(self, error: BaseException) -> bool:
        """Whether the error was raised here on purpose."""
        return self.line.startswith('raise ') or self.line.startswith('assert') and isinstance(error, AssertionError)


def sentence_of(error: BaseException) -> str | None:
    """What to tell the user of an error; None if it is a bug, whose traceback is the useful part.

    An error is the user's where somebody raised it on purpose, by a ``raise`` or an ``assert`` in this package, in MMEngine or in a
    host library; where a config entry does not fit what it names; where an image is not read; and where the operating system
    refuses a file. What breaks by itself is a bug.
    """
    link: BaseException | None = error
    while link is not None:
        places = _places(link)
        meant = bool(places) and places[-1].meant(link)
        if meant and places[-1].folders & _OWN:
            return _message(link)
        link = link.__cause__ or (
            link.__context__ if meant else None
        )  # MMEngine's registry wraps what is raised while it builds
    places, message = _places(error), textwrap.shorten(_message(error), 300, placeholder=' ...')
    if any(place.host and place.file.endswith(_LOADING) for place in places):
        loading = [
            frame.f_locals
            for frame, _ in traceback.walk_tb(error.__traceback__)
            if frame.f_code.co_filename.endswith(_LOADING)
        ]
        name = next((names['filename'] for names in loading if 'filename' in names), 'an image or its annotation')
        return f"{name} cannot be read ({message}): replace the file, or take it out of the data set's list"
    told = _of_an_entry(error, places, message)
    if told is None and isinstance(error, OSError) and error.strerror:
        where = f' {str(error.filename)!r}' if error.filename else ''
        told = (
            (
                f'cannot write{where}: {error.strerror.lower()}; what was written before is intact: make room, or name another folder, '
                'and start again (a training with --resume)'
            )
            if error.errno in _DISK_ERRORS
            else f'{error.strerror}{where and ":" + where}: correct the path or its rights, or name another'
        )
    if told is None and places and places[-1].meant(error) and places[-1].host:
        told = f'{message or type(error).__name__} (from {places[-1].host}; --debug shows where)'
    return told


def _is_of_a_worker(error: BaseException) -> bool:
    """Whether a data-loading process raised it: such an error comes as the text of its traceback."""
    return re.match(r'Caught \w+ in DataLoader worker process', str(error)) is not None


def _places(error: BaseException) -> list[Place]:
    """The lines of an error's traceback, outermost first."""
    if _is_of_a_worker(error):
        return [Place(*found) for found in re.findall(r'File "(.+)", line \d+, in .+\n +(.+)', str(error))]
    return [Place(frame.filename, frame.line or '') for frame in traceback.extract_tb(error.__traceback__)]


def _message(error: BaseException) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if _is_of_a_worker(error):
        text = re.sub(r'^[\w.]+: ', '', text.strip().splitlines()[-1])
    return ' '.join(text.split())


def _of_an_entry(error: BaseException, places: list[Place], message: str) -> str | None:
    """What is wrong with the config entry that MMEngine was building."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    building = [
        frame.f_locals for frame in frames if frame.f_code.co_filename.endswith('mmengine/registry/build_functions.py')
    ]
    entry = building[-1] if building else {}
    kind, args = entry.get('obj_type'), entry.get('args', {})
    absent = (
        re.match(r'(\S+) is not in the .+ registry', message)
        if isinstance(error, KeyError) and 'registry' in entry
        else None
    )
    unknown = re.search(r"(\w+)\.__(?:init|new)__\(\) got an unexpected keyword argument '(\w+)'", message)
    missing = re.search(
        r'(\w+)\.__(?:init|new)__\(\) missing \d+ required (?:positional|keyword-only) arguments?: (.+)', message
    )
    in_mmengine = bool(places) and places[-1].host == 'mmengine'
    if absent:
        return _unknown_type(absent[1], entry['registry'])
    for frame in frames:  # MMEngine's optimizer constructor inspects what it found before it looks whether it found any
        if isinstance(error, TypeError) and frame.f_locals.get('optimizer_cls', frame) is None:
            return _unknown_type(frame.f_locals['optimizer_cfg']['type'], OPTIMIZERS)
    if isinstance(error, TypeError) and unknown and (in_mmengine or unknown[2] in args):
        made = entry.get('obj_cls') or frames[-1].f_globals.get(unknown[1])
        fields = list(inspect.signature(made).parameters) if made else []
        return f'{kind or unknown[1]} has no field {unknown[2]!r}: {_closest(unknown[2], fields)}'
    if isinstance(error, TypeError) and missing and in_mmengine:
        return f'{kind or missing[1]} lacks the field {missing[2]}: add it to its entry in the config'
    if (
        building and message == 'need at least one array to concatenate'
    ):  # what MMEngine's data sets make of no sample at all
        return (
            f'{kind} finds no samples with ann_file={args.get("ann_file")!r} in {args.get("data_root")!r}: '
            'correct these fields, or the files'
        )
    if building and places[-1].meant(error):
        return f'{kind or "an entry of the config"} cannot be made: {message} (--debug shows where)'
    return None


def _unknown_type(kind: str, registry: Registry) -> str:
    root = registry
    while root.parent is not None:
        root = root.parent
    names = [
        f'{relative.scope}.{name}' if '.' in kind else name
        for relative in (registry, root, *root.children.values())
        for name in relative.module_dict
    ]
    return f'type {kind!r} is not known: {_closest(kind, names)}, or import its module by custom_imports'


def _closest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, list(dict.fromkeys(names)), n=3)
    return (
        f'the closest are {", ".join(map(repr, close))}' if close else f'there are {", ".join(names[:8]) or "others"}'
    )
