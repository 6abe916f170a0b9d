"""The checkpoint of a work folder that a training resumes from."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from pathlib import Path

from mmengine.logging import print_log

from .reading import read_checkpoint

LAST = 'last_checkpoint'  # MMEngine's file that names the newest checkpoint
_OF_THE_SCHEDULE = re.compile(r'((epoch|iter)_\d+|preempted)\.pth')


def newest_checkpoint(work_dir: str | Path) -> str | None:
    """The last checkpoint that was written. If it is broken or gone: the newest sound one in its folder.

    Each candidate is read as a whole, so one that is returned can be loaded. A file that cannot be read, whatever is
    wrong with it, is passed over with a warning.

    Returns:
        None, if no checkpoint was ever written.

    Raises:
        ValueError: There are checkpoints, and all of them are broken.
    """
    folder = Path(work_dir)
    named = _named_by(folder / LAST)
    folders = [folder]
    candidates = []
    if named is not None:
        folders.insert(0, named.parent)
        candidates = [folder / named.name, named]  # its own first: the folder may have been moved, or copied
    written = [found for place in dict.fromkeys(folders) for found in _checkpoints_in(place)]
    candidates += [path for _, path in sorted(written, reverse=True)]
    broken = []
    for path in dict.fromkeys(candidates):
        if not os.path.lexists(path):
            continue
        try:
            read_checkpoint(path)
            return str(path)
        except Exception as error:  # a damaged file may raise anything
            print_log(f'{path} is passed over: {error}', 'current', logging.WARNING)
            broken.append(str(path))
    if broken:
        raise ValueError(
            f'{work_dir} has no sound checkpoint to resume from, {", ".join(broken)} cannot be read: '
            'train anew without --resume, or name another checkpoint behind it'
        )
    return None


def _named_by(pointer: Path) -> Path | None:
    """The path in MMEngine's pointer, if it is one: a kill, a full disk or another program may have left anything."""
    try:
        name = pointer.read_bytes().decode().strip() if pointer.is_file() else ''
        os.stat(name)
    except FileNotFoundError:  # a path that names nothing, which may have been moved
        pass
    except (OSError, ValueError):  # not UTF-8, a NUL in it, too long, or not to be read
        return None
    return Path(name) if name else None


def _checkpoints_in(folder: Path) -> list[tuple[float, Path]]:
    """The files named like checkpoints of a schedule, with the times of their writing."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _OF_THE_SCHEDULE.fullmatch(entry.name):
                with contextlib.suppress(OSError):  # gone meanwhile
                    found.append((entry.stat(follow_symlinks=False).st_mtime, Path(entry.path)))
    return found
