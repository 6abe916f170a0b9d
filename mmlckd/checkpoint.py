"""Reading checkpoints without running what is in them."""

import hashlib
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, Dict, Optional, Union
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import Tensor, nn


def _history_attribute(owner, name):
    """What a checkpoint may look up by name: the public statistics of MMEngine's log history, and nothing else."""
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'the attribute {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


_multiarray = (getattr(np, '_core', None) or np.core).multiarray
ALLOWED = [
    HistoryBuffer, slice, np.ndarray, np.dtype,
    *((getattr(_multiarray, name), f'numpy.{core}.multiarray.{name}') for name in ('_reconstruct', 'scalar')
      for core in ('core', '_core')),  # numpy 1 and 2 write one function under two names
    *{type(np.dtype(kind)) for kind in ('bool', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16', 'U', 'S')},
    (_history_attribute, 'builtins.getattr'),
]
_trusted = False


def trust_checkpoints() -> None:
    """From now on this process unpickles whatever a checkpoint holds, and so runs any code in it."""
    global _trusted
    _trusted = True


def read_checkpoint(source: Union[str, Path], map_location: Any = 'cpu') -> Dict:
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


def load_from_allow_list(filename: str, map_location: Any = None) -> Dict:
    """:func:`read_checkpoint` as MMEngine wants a loader, whose name it logs from the eleventh letter on."""
    return read_checkpoint(filename, map_location)


# MMEngine's own loaders fall back to plain unpickling. In their place this one serves whatever asks MMEngine for a checkpoint:
# load_from, --resume, init_cfg=dict(type='Pretrained').
_SCHEMES = ['', 'http://', 'https://', 'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://']
CheckpointLoader.register_scheme(_SCHEMES, load_from_allow_list, force=True)
mmengine_checkpoint.load_from_http = load_from_allow_list  # where the model-zoo schemes (torchvision://, open-mmlab://) end


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
        found = re.match(r'(?!Unsupported operand)(.+?)(?: was not an allowed| by default|\. |\.?$)', str(error.__context__ or error))
        if found:
            return (f'holds more than weights, is refused and was not run ({found[1]}): '
                    'if you made the file yourself and trust it, --trust-checkpoints loads it')
    return f'is damaged or no checkpoint ({type(error).__name__}): {again}, or name another'


def load_weights(model: nn.Module, source: Union[str, Path]) -> None:
    """Load a checkpoint's weights into a model, every key accounted for.

    ``module.`` prefixes and the connectors of a distilled student (``distiller.``) are dropped.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_checkpoint`, and where keys or shapes do not match.
    """
    weights = weights_of(read_checkpoint(source), source)
    weights = {key: value for key, value in weights.items() if not key.startswith('distiller.')}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        fault = misfit(model.state_dict(), weights) or ' '.join(str(error).split())[:400]
        raise ValueError(f'checkpoint {str(source)!r} does not fit {type(model).__name__}: {fault}') from error


def weights_of(content: Dict, source: Union[str, Path]) -> Dict[str, Tensor]:
    """The weights in a checkpoint's content by name, without DDP's prefix ``module.``.

    Raises:
        ValueError: There are none.
    """
    if 'state_dict' not in content and 'ema_state_dict' in content:
        raise ValueError(f'checkpoint {str(source)!r} holds averaged weights (ema_state_dict) and no state_dict: save them as state_dict, '
                         'without their prefix `module.`')
    weights = content.get('state_dict', content)
    if not isinstance(weights, dict) or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()):
        raise ValueError(f'checkpoint {str(source)!r} holds no weights by name: give a file that a training or an export wrote')
    return {key.removeprefix('module.'): value for key, value in weights.items()}


def misfit(expected: Dict[str, Tensor], weights: Dict[str, Tensor]) -> Optional[str]:
    """In what way weights are not those of a network, and what to do about it; None if they are."""
    missing = [key for key in expected if key not in weights and not key.endswith('num_batches_tracked')]
    unknown = [key for key in weights if key not in expected]
    reshaped = [key for key in expected if key in weights and expected[key].shape != weights[key].shape]
    if missing:
        prefix = next((key.removesuffix(missing[0]) for key in unknown if key.endswith(f'.{missing[0]}')), '')
        if prefix and all(prefix + key in weights for key in missing):
            return f'its keys have the prefix {prefix!r} ({prefix + missing[0]}): save the weights under their names without it'
    if not missing and unknown and all(key.startswith('ema_') for key in unknown):
        return f'beside the weights it holds averaged ones ({_some(unknown)}): save it without the keys that begin with ema_'
    if reshaped and not missing and not unknown and all(expected[key].shape[1:] == weights[key].shape[1:] for key in reshaped):
        key = reshaped[0]
        return (f'{key} is {tuple(weights[key].shape)} in the file and {tuple(expected[key].shape)} in the network, and so the numbers '
                'of classes seem to differ: set num_classes to the file\'s, or take another file')
    shapes = [f'{key} {tuple(weights[key].shape)} for {tuple(expected[key].shape)}' for key in reshaped]
    faults = [f'{len(keys)} {what} ({_some(keys)})' for what, keys in
              (('missing', missing), ('unknown', unknown), ('of another shape', shapes)) if keys]
    return f'its keys do not match, {", ".join(faults)}: take a checkpoint of this network and config' if faults else None


def _some(keys) -> str:
    return ', '.join(keys[:3]) + (', ...' if len(keys) > 3 else '')


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
        raise ValueError(f'checkpoint {address!r} cannot be downloaded ({error}): fetch it by other means and give its path') from error
    finally:
        barrier()
    return path
