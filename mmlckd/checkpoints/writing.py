"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

_HOST = socket.gethostname().replace('.', '_')
_PART = re.compile(r'(.+?)(?:\.([^.]+)-(\d+))?\.part')  # a file's name, and the machine and process that write it


@register_backend('mmlckd.atomic')
class AtomicBackend(LocalBackend):
    """Local files that appear under their names only when all of their bytes are on the disk.

    The bytes go to ``<name>.<machine>-<process>.part`` first. A killed process may leave that file behind; the next
    write of the same name removes it.

    Raises:
        OSError: The disk is full, or the folder cannot be written. The file keeps its old content, and no part is left.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        path = Path(filepath)
        part = path.with_name(f'{path.name}.{_HOST}-{os.getpid()}.part')
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        try:
            with open(part, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            error.filename, error.filename2 = str(path), None
            raise
        with contextlib.suppress(OSError):  # the name as well, where the file system can
            _sync_folder(path.parent)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        self.put(obj.encode(encoding), filepath)


def remove_leftovers(folder: str | Path, name: str | None = None, alone: bool = False) -> None:
    """Remove half-written files whose writers were killed.

    Args:
        folder: Where to look.
        name: The file that they were to become; None: any checkpoint (``.pth``).
        alone: Nobody else writes to the folder, so parts of other machines' processes are left over too.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _PART.fullmatch(entry.name)
            if found is None:
                continue
            wanted = found[1].endswith('.pth') if name is None else found[1] == name
            if wanted and (alone or not _may_be_written(found[2], found[3])):
                os.unlink(entry.path)


def _may_be_written(host: str | None, process: str | None) -> bool:
    """Whether the writer of a part may be at work: it is on another machine, or is running here."""
    if host is None or process is None:  # as an earlier version of this package named parts
        return False
    if host != _HOST or int(process) == os.getpid():
        return host != _HOST
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        pass
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
