"""Checkpoints by their address."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier


def download(address: str) -> Path:
    """The file of an address, fetched once per machine.

    A name that ends in the start of its SHA-256, as OpenMMLab publishes, is checked, and kept under that name, where
    torch and MMEngine keep it too. Other names may stand for many files, so each address has its own folder.

    Raises:
        ValueError: There is no connection, no such file, or the check sum differs.
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
