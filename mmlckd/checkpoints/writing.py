"""Checkpoints on disk: written whole or not at all, and the one to resume from."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

LAST = 'last_checkpoint'  # MMEngine's file that names the newest checkpoint


@register_backend('mmlckd.atomic')
class AtomicBackend(LocalBackend):
    """Local files that appear under their names only when all of their bytes are on the disk.

    The bytes go to ``<name>.part`` first. A killed process may leave that file behind; the next write of the name takes it over.

    Raises:
        OSError: The disk is full, or the folder cannot be written; what stood under the name stands, and no part is left.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        path, part = Path(filepath), Path(f'{filepath}.part')
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            error.filename = str(path)
            raise

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        self.put(obj.encode(encoding), filepath)


def newest_checkpoint(work_dir: str | Path) -> str | None:
    """The checkpoint to resume from: the last one that was written or, where that is broken or gone, the newest sound one beside it.

    Returns:
        None, where no checkpoint was ever written.

    Raises:
        ValueError: There are checkpoints, and all of them are broken.
    """
    folder, pointer = Path(work_dir), Path(work_dir) / LAST
    named = (
        pointer.read_text().strip() if pointer.is_file() else ''
    )  # empty, if a kill or a full disk cut its writing short
    folders = dict.fromkeys([Path(named).parent, folder] if named else [folder])
    others = sorted(
        (
            path
            for place in folders
            for path in place.glob('*.pth')
            if re.fullmatch(r'(epoch|iter)_\d+|preempted', path.stem)
        ),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    candidates = dict.fromkeys([Path(named), folder / Path(named).name, *others] if named else others)
    broken = []
    for path in candidates:
        if _is_sound(path):
            return str(path)
        if path.exists():
            broken.append(str(path))
            print_log(f'checkpoint {path} is broken and passed over', 'current', logging.WARNING)
    if broken:
        raise ValueError(
            f'{work_dir} has no sound checkpoint to resume from, {", ".join(broken)} being broken: '
            'train anew without --resume, or name another checkpoint behind it'
        )
    return None


def _is_sound(path: Path) -> bool:
    """Whether a checkpoint's archive is complete and its check sums are right."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
