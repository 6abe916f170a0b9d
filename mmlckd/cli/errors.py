"""Which errors are the user's to mend, and the one sentence that says so."""

from __future__ import annotations

import errno
import inspect
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from mmengine.registry import OPTIMIZERS

from .failures import Failure, Place
from .names import closest, not_known

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_LOADING = 'transforms/loading.py'  # of mmcv and of each host
_MAKERS = r'(?:(\w+)\.)?__(?:init|new)__\(\)'  # Python 3.9 leaves out the class


def sentence_of(error: BaseException) -> str | None:
    """What to tell the user of an error; None if it is a bug, whose traceback is the useful part.

    An error is the user's where

    - this package, MMEngine or a host library raised it on purpose;
    - a config entry does not fit what it names;
    - an image cannot be read;
    - a host library does not import;
    - the operating system refuses a file.

    What breaks by itself is a bug.
    """
    failure = Failure(error)
    for rule in RULES:
        sentence = rule(failure)
        if sentence is not None:
            return sentence
    return None


def _raised_by_this_project(failure: Failure) -> str | None:
    """Its own sentence, also where MMEngine's registry wrapped it in an error of its own."""
    link: Failure | None = failure
    while link is not None:
        if link.is_meant and link.places[-1].is_ours:
            return link.text
        link = Failure(link.before) if link.before is not None else None
    return None


def _unreadable_image(failure: Failure) -> str | None:
    if not any(place.host and place.file.endswith(_LOADING) for place in failure.places):
        return None
    loading = [frame.f_locals for frame in failure.frames if frame.f_code.co_filename.endswith(_LOADING)]
    names = [variables['filename'] for variables in loading if 'filename' in variables]
    name = names[0] if names else 'an image or its annotation'
    return f"{name} cannot be read ({failure.message}): replace the file, or take it out of the data set's list"


def _unknown_type(failure: Failure) -> str | None:
    absent = re.match(r'(\S+) is not in the .+ registry|Failed to get (\S+)$', failure.text)
    if not absent or not isinstance(failure.error, (KeyError, RuntimeError)) or 'registry' not in failure.entry:
        return None
    return not_known(absent[1] or absent[2], failure.entry['registry'])


def _unknown_optimizer(failure: Failure) -> str | None:
    """MMEngine's optimizer constructor inspects what it found before it looks whether it found any."""
    for frame in failure.frames:
        if isinstance(failure.error, TypeError) and frame.f_locals.get('optimizer_cls', frame) is None:
            return not_known(frame.f_locals['optimizer_cfg']['type'], OPTIMIZERS)
    return None


def _unknown_field(failure: Failure) -> str | None:
    unknown = re.search(rf"{_MAKERS} got an unexpected keyword argument '(\w+)'", failure.message)
    if not unknown or not isinstance(failure.error, TypeError):
        return None
    if not failure.is_of_the_call and unknown[2] not in failure.entry.get('args', {}):
        return None
    made = failure.entry.get('obj_cls') or failure.frames[-1].f_globals.get(unknown[1])
    fields = list(inspect.signature(made).parameters) if made else []
    kind = failure.kind or unknown[1] or 'the class'
    return f'{kind} has no field {unknown[2]!r}: {closest(unknown[2], fields)}'


def _missing_field(failure: Failure) -> str | None:
    what = rf'{_MAKERS} missing \d+ required (?:positional|keyword-only) arguments?: (.+)'
    missing = re.search(what, failure.message)
    if not missing or not isinstance(failure.error, TypeError) or not failure.is_of_the_call:
        return None
    made = failure.kind or missing[1] or 'the class'
    return f'{made} lacks the field {missing[2]}: add it to its entry in the config'


def _no_samples(failure: Failure) -> str | None:
    if not failure.entry or failure.message != 'need at least one array to concatenate':
        return None  # MMEngine's data sets say that where they find no sample at all
    args = failure.entry.get('args', {})
    return (
        f'{failure.kind} finds no samples with ann_file={args.get("ann_file")!r} in {args.get("data_root")!r}: '
        'correct these fields, or the files'
    )


def _refused_entry(failure: Failure) -> str | None:
    if not failure.entry or not failure.is_meant:
        return None
    return f'{failure.kind or "an entry of the config"} cannot be made: {failure.message} (--debug shows where)'


def _full_disk(failure: Failure) -> str | None:
    error = failure.error
    if not isinstance(error, OSError) or error.errno not in _DISK_ERRORS or not error.strerror:
        return None
    return (
        f'cannot write{_quoted(error.filename)}: {error.strerror.lower()}; what was written before is intact: '
        'make room, or name another folder, and start again (a training with --resume)'
    )


def _refused_file(failure: Failure) -> str | None:
    error = failure.error
    if not isinstance(error, OSError) or not error.strerror:
        return None
    where = f':{_quoted(error.filename)}' if error.filename else ''
    return f'{error.strerror}{where}: correct the path or its rights, or name another'


def _host_does_not_import(failure: Failure) -> str | None:
    """A library beside which a host does not fit breaks the host's import, by whatever error."""
    if failure.of_a_worker or isinstance(failure.error, MemoryError):
        return None
    passed = [(frame.f_code.co_name, place) for frame, place in zip(failure.frames, failure.places) if place.host]
    if not passed or passed[-1][0] != '<module>' or not _is_installed(passed[-1][1]):
        return None
    place, error = passed[-1][1], type(failure.error).__name__
    remedy = 'correct that file, or install versions that fit each other'
    if 'multimodal' in Path(place.file).parts:
        remedy = "run `pip install 'transformers<5'`, or uninstall transformers"
    return (
        f'{place.host} does not import here, {error} in {place.file}: {failure.message}: {remedy} (--debug shows where)'
    )


def _is_installed(place: Place) -> bool:
    """Whether a line is in the host library itself, and not in a folder of that name."""
    spec = find_spec(place.host) if place.host else None
    return spec is not None and Path(spec.origin or '').parent in Path(place.file).parents


def _raised_by_a_host(failure: Failure) -> str | None:
    if not failure.is_meant or failure.host is None:
        return None
    return f'{failure.message or type(failure.error).__name__} (from {failure.host}; --debug shows where)'


# In this order: the first that knows the error tells it.
RULES: tuple[Callable[[Failure], str | None], ...] = (
    _raised_by_this_project,
    _unreadable_image,
    _unknown_type,
    _unknown_optimizer,
    _unknown_field,
    _missing_field,
    _no_samples,
    _refused_entry,
    _full_disk,
    _refused_file,
    _host_does_not_import,
    _raised_by_a_host,
)


def _quoted(filename: str | bytes | int | None) -> str:
    return f' {str(filename)!r}' if filename else ''
