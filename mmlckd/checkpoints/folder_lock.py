"""One training per folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
from pathlib import Path

from mmengine.logging import print_log

_NAME = '.training.lock'
_held: dict[
    str, int
] = {}  # folder to descriptor. Closing any descriptor of such a file gives up the lock of the process.
os.register_at_fork(after_in_child=_held.clear)  # a forked process does not have its parent's locks


def lock_folder(folder: str | Path) -> bool:
    """Keep other processes from training in a folder until this one ends, or calls :func:`unlock_folders`.

    The lock is the operating system's (POSIX), so it ends with its process, also by a kill; data-loading workers do not
    inherit it.

    Returns:
        Whether it is held. False on file systems without locks, as some NFS mounts are, with a warning.

    Raises:
        ValueError: Another process holds it.
        OSError: The folder cannot be written.
    """
    place = os.path.realpath(folder)
    if place in _held:
        return True
    os.makedirs(place, exist_ok=True)
    descriptor = os.open(os.path.join(place, _NAME), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 200).decode(errors='replace').strip()
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise ValueError(
                f'work_dir {str(folder)!r} is in use by another training ({owner or "of an unknown process"}): '
                'wait for its end, or give this one another --work-dir'
            ) from error
        print_log(
            f'{folder} is on a file system without locks ({error.strerror}): '
            'a second training in it would not be noticed',
            'current',
            logging.WARNING,
        )
        return False
    with contextlib.suppress(OSError):  # a full disk is no reason to stop here
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f'process {os.getpid()} on {socket.gethostname()}\n'.encode())
    _held[place] = descriptor
    return True


def unlock_folders() -> None:
    """Give up all locks of this process."""
    while _held:
        os.close(_held.popitem()[1])
