"""Reading checkpoints without running what is in them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from .downloading import download
from .files import Unreadable, open_checkpoint
from .pickle_records import Refused
from .rebuilding import Rebuilder, allows

_SCHEMES = ['', 'http://', 'https://', 'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://']
_trusted = False


def trust_checkpoints() -> None:
    """From now on this process unpickles whatever a checkpoint holds, and so runs any code in it."""
    global _trusted
    _trusted = True


def read_checkpoint(source: str | Path, map_location: Any = 'cpu') -> dict:
    """Load a checkpoint from a path or an http(s) address, refusing any content that is more than data.

    Allowed are tensors, numbers, strings, numpy arrays and MMEngine's log history, which is all an OpenMMLab checkpoint
    holds. What is returned consists of plain dicts, lists and tuples of such values; an OrderedDict or a Counter stays
    one, without attributes but for the ``_metadata`` of state dicts. The text of a config that old ones keep as
    ``meta['config']`` is left out: MMEngine's resume would run it.

    Args:
        source: A path, or an http(s) address.
        map_location: The device of the tensors; anything else than a device or its name means the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint, is damaged, or holds something else than the above.

    Source: this project. It does not go through ``torch.load``, which does not check the sizes in the file, and whose
        safe mode differs from version to version.
    """
    scheme = urlparse(str(source)).scheme
    if scheme not in ('', 'http', 'https') and '://' in str(source):
        raise ValueError(f'checkpoint {str(source)!r} is not read from {scheme}://: give a path, or an http(s) address')
    path = download(str(source)) if scheme in ('http', 'https') else Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {str(source)!r} {_absence(path)}')
    try:
        content = torch.load(path, map_location, weights_only=False) if _trusted else _load(path, map_location)
    except PermissionError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f'checkpoint {str(source)!r} {_fault(path, error)}') from error
    if not isinstance(content, dict):
        raise ValueError(f'checkpoint {str(source)!r} holds a {type(content).__name__}: a dict of weights is needed')
    if not _trusted and isinstance(content.get('meta'), dict):
        content['meta'].pop('config', None)
    return content


def load_from_allow_list(filename: str, map_location: Any = None) -> dict:
    """:func:`read_checkpoint` as MMEngine wants a loader, whose name it logs from the eleventh letter on."""
    return read_checkpoint(filename, map_location)


def install_safe_loader() -> None:
    """Put the allow-list in the place of MMEngine's own loaders, which fall back to plain unpickling.

    It then serves whatever asks MMEngine for a checkpoint: ``load_from``, ``--resume`` and
    ``init_cfg=dict(type='Pretrained')``. The tools and the distiller call this; calling it again changes nothing.
    """
    CheckpointLoader.register_scheme(_SCHEMES, load_from_allow_list, force=True)
    # The schemes of model zoos (torchvision://, open-mmlab://) end here.
    mmengine_checkpoint.load_from_http = load_from_allow_list


def _load(path: Path, map_location: Any) -> Any:
    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    with open(path, 'rb') as file:
        source = open_checkpoint(file, allows)
        return Rebuilder(source, os.fstat(file.fileno()).st_size, device).value(source.root)


def _absence(path: Path) -> str:
    """Why there is no file to read."""
    if path.is_dir():
        return 'is a folder: name a file in it'
    if os.path.lexists(path):
        return f'is {"a link to nothing" if path.is_symlink() else "a pipe or a device"}: name a file'
    return 'does not exist: name another'


def _fault(path: Path, error: Exception) -> str:
    """What is wrong with a file that is not read, and what to do about it."""
    with open(path, 'rb') as file:
        head = file.read(256).lstrip()
    again = 'copy or download it again'
    if not head:
        return f'is empty: {again}'
    if head.startswith(b'<'):
        begin = head[:20].decode(errors='replace')
        return f'is a web page and no weights ({begin!r}): download the file that the page offers'
    if isinstance(error, zipfile.BadZipFile) and 'not a zip file' in str(error):  # its end is not there
        return f'is damaged, cut short at {path.stat().st_size} bytes: {again}'
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, Refused):
        return (
            f'holds more than weights, is refused and was not run ({error}): '
            'if you made the file yourself and trust it, --trust-checkpoints loads it'
        )
    return f'is damaged or no checkpoint ({type(error).__name__}): {again}, or name another'
