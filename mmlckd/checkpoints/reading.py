"""Reading checkpoints without running what is in them."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint


def _history_attribute(owner, name):
    """What a checkpoint may look up by name: the public statistics of MMEngine's log history, and nothing else."""
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'the attribute {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


_multiarray = (getattr(np, '_core', None) or np.core).multiarray
ALLOWED = [
    HistoryBuffer,
    slice,
    np.ndarray,
    np.dtype,
    *(
        (getattr(_multiarray, name), f'numpy.{core}.multiarray.{name}')
        for name in ('_reconstruct', 'scalar')
        for core in ('core', '_core')
    ),  # numpy 1 and 2 write one function under two names
    *{
        type(np.dtype(kind))
        for kind in ('bool', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16', 'U', 'S')
    },
    (_history_attribute, 'builtins.getattr'),
]
_SCHEMES = ['', 'http://', 'https://', 'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://']
_trusted = False


def trust_checkpoints() -> None:
    """From now on this process unpickles whatever a checkpoint holds, and so runs any code in it."""
    global _trusted
    _trusted = True


def read_checkpoint(source: str | Path, map_location: Any = 'cpu') -> dict:
    """Load a checkpoint from a path or an http(s) address, refusing any content that would run code.

    Allowed are tensors, numbers, strings, numpy arrays and MMEngine's log history, which is all an OpenMMLab checkpoint
    holds. The text of a config that old ones keep as ``meta['config']`` is left out: MMEngine's resume would run it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint, or holds something else than the above.

    Source: this project, over ``torch.load(weights_only=True)``.
    """
    scheme = urlparse(str(source)).scheme
    if scheme not in ('', 'http', 'https') and '://' in str(source):
        raise ValueError(f'checkpoint {str(source)!r} is not read from {scheme}://: give a path, or an http(s) address')
    path = _download(str(source)) if scheme in ('http', 'https') else Path(source).expanduser()
    if not path.is_file():
        fault = 'is a folder: name a file in it' if path.is_dir() else 'does not exist: name another'
        raise FileNotFoundError(f'checkpoint {str(source)!r} {fault}')
    try:
        with torch.serialization.safe_globals(ALLOWED):
            content = torch.load(path, map_location=map_location, weights_only=not _trusted)
    except PermissionError:
        raise
    except Exception as error:  # torch raises pickle, zip, end-of-file and runtime errors, by format
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
    mmengine_checkpoint.load_from_http = (
        load_from_allow_list  # where the model-zoo schemes (torchvision://, open-mmlab://) end
    )


def _fault(path: Path, error: Exception) -> str:
    """What is wrong with a file that torch does not read, and what to do about it."""
    with open(path, 'rb') as file:
        head = file.read(256).lstrip()
    again = 'copy or download it again'
    if not head:
        return f'is empty: {again}'
    if head.startswith(b'<'):
        return f'is a web page and no weights ({head[:20].decode(errors="replace")!r}): download the file that the page offers'
    if head.startswith(b'PK') and not zipfile.is_zipfile(path):
        return f'is damaged, cut short at {path.stat().st_size} bytes: {again}'
    if isinstance(error, pickle.UnpicklingError):
        # torch's own message advises to load without the check; only what it found is passed on
        found = re.match(
            r'(?!Unsupported operand)(.+?)(?: was not an allowed| by default|\. |\.?$)', str(error.__context__ or error)
        )
        if found:
            return (
                f'holds more than weights, is refused and was not run ({found[1]}): '
                'if you made the file yourself and trust it, --trust-checkpoints loads it'
            )
    return f'is damaged or no checkpoint ({type(error).__name__}): {again}, or name another'


def _download(address: str) -> Path:
    """The file of an address, fetched once a machine.

    A name that ends in the start of its SHA-256, as OpenMMLab publishes, is kept by that name, where torch and MMEngine keep it
    too; many files may share any other, so each address has its own folder.
    """
    name = Path(urlparse(address).path).name or 'checkpoint.pth'
    digest = re.search(r'-([a-f0-9]{8,})\.', name)
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    path = folder / name if digest else folder / hashlib.sha256(address.encode()).hexdigest()[:16] / name
    try:
        if os.environ.get('LOCAL_RANK', '0') == '0' and not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(path), hash_prefix=digest[1] if digest else None)
    except (OSError, RuntimeError) as error:  # no connection, an HTTP error, a wrong check sum
        raise ValueError(
            f'checkpoint {address!r} cannot be downloaded ({error}): fetch it by other means and give its path'
        ) from error
    finally:
        barrier()
    return path
