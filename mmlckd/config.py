"""Reading OpenMMLab configs: where they are looked for, and the plain model inside them."""

import copy
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Optional

from mmengine.config import Config, ConfigDict
from mmengine.config import utils as mmengine_config_utils

REPOSITORY = Path(__file__).resolve().parents[1]
DISTILLER = 'LipschitzDistiller'


def alias_mmseg() -> None:
    """Let ``mmseg::...`` configs resolve with OneDL's packages.

    MMEngine knows mmseg by its old distribution name; the fork renamed it, as ``onedl-mmsegmentation``.
    """
    try:
        distribution('mmsegmentation')
    except PackageNotFoundError:
        mmengine_config_utils.MODULE2PACKAGE['mmseg'] = 'onedl-mmsegmentation'


def find_file(path: str) -> Optional[Path]:
    """The file of that path, looked up from the working folder and then from the repository's root; None if in neither."""
    candidates = (Path(path).expanduser(), REPOSITORY / path)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_config(path: str) -> Config:
    """Read a config from a path, or by its name in another package (``mmdet::...``, ``mmseg::...``, ``mmpretrain::...``).

    Raises:
        FileNotFoundError: There is no such config.
    """
    alias_mmseg()
    if '::' in str(path):
        from mmengine.hub import get_config  # resolves package names, bases included
        return get_config(str(path))
    found = find_file(str(path))
    if found is None:
        raise FileNotFoundError(f'config {str(path)!r} does not exist, seen from the working folder and from {REPOSITORY}')
    return Config.fromfile(found)


def bare_model(config: Config) -> ConfigDict:
    """The model dict of the plain network: the student of a distillation config, else the model itself.

    It carries its own scope and preprocessor, so it builds in any other config's context.
    """
    model = copy.deepcopy(config.model)
    if is_distiller(model):
        model = model.student
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(config.data_preprocessor))
    if config.get('default_scope'):
        model.setdefault('_scope_', config.default_scope)
    return model


def bare_config(config: Config) -> Config:
    """The same config around the plain network: what testing and inference run, with no teacher in sight."""
    config = copy.deepcopy(config)
    model = bare_model(config)
    model.pop('_scope_', None)
    config.model = model
    return config


def is_distiller(model: dict) -> bool:
    return str(model.get('type', '')).split('.')[-1] == DISTILLER
