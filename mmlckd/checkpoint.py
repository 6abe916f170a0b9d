"""Reading checkpoints without running what is in them."""

import re
from pathlib import Path
from typing import Dict
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn


def _history_attribute(owner, name):
    """What a checkpoint may look up by name: the public statistics of MMEngine's log history, and nothing else."""
    if owner is not HistoryBuffer or name.startswith('_'):
        raise ValueError(f'the checkpoint asks for the attribute {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


_core = getattr(np, '_core', None) or np.core
ALLOWED = [
    HistoryBuffer, slice, np.ndarray, np.dtype, _core.multiarray._reconstruct, _core.multiarray.scalar,
    *{type(np.dtype(kind)) for kind in ('bool', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16', 'U', 'S')},
    (_history_attribute, 'builtins.getattr'),
]


def read_checkpoint(source: str) -> Dict:
    """Load a checkpoint from a path or an http(s) address, on the CPU, refusing any content that would run code.

    MMEngine's own loader falls back to plain unpickling; this one allows tensors, numbers, strings, numpy arrays and
    MMEngine's log history, which is all an OpenMMLab checkpoint holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint, or holds something else than the above.

    Source: this project, over ``torch.load(weights_only=True)``.
    """
    path = _download(source) if urlparse(source).scheme in ('http', 'https') else Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {source!r} does not exist')
    try:
        with torch.serialization.safe_globals(ALLOWED):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises pickle, zip, end-of-file and runtime errors, by format
        # torch's message advises to load without the check; only the line that says what was found is passed on
        found = re.search(r'WeightsUnpickler error: *(.+?)(?: was not an allowed| by default|\. |$)', str(error), re.MULTILINE)
        reason = found[1] if found else type(error).__name__
        raise ValueError(f'checkpoint {source!r} is damaged, or holds more than weights and is refused: {reason}') from error
    if not isinstance(content, dict):
        raise ValueError(f'checkpoint {source!r} holds a {type(content).__name__}: a dict of weights is needed')
    return content


def load_weights(model: nn.Module, source: str) -> None:
    """Load a checkpoint's weights into a model, every key accounted for.

    ``module.`` prefixes and the connectors of a distilled student (``distiller.``) are dropped.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_checkpoint`, and where keys or shapes do not match.
    """
    content = read_checkpoint(source)
    weights: Dict[str, Tensor] = content.get('state_dict', content)
    if not isinstance(weights, dict) or not all(isinstance(key, str) for key in weights):
        raise ValueError(f'checkpoint {source!r} holds no weights by name: give a file that a training or an export wrote')
    weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    weights = {key: value for key, value in weights.items() if not key.startswith('distiller.')}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        details = ' '.join(line.strip() for line in str(error).splitlines()[1:4])
        raise ValueError(f'checkpoint {source!r} does not fit {type(model).__name__}: {details[:400]}') from error


def _download(address: str) -> Path:
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(address).path).name
    if is_main_process() and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = torch.hub.HASH_REGEX.search(path.name)  # OpenMMLab publishes name-<start of the SHA-256>.pth
        torch.hub.download_url_to_file(address, str(path), hash_prefix=digest.group(1) if digest else None)
    barrier()
    return path
