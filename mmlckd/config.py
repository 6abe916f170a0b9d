"""Reading OpenMMLab configs: where they are looked for, and the plain model inside them."""

from __future__ import annotations

import copy
import difflib
import inspect
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.config import utils as mmengine_config_utils
from mmengine.hub import get_config
from mmengine.runner import Runner

from mmlckd.registry import MODELS, class_of, same_type

_PACKAGE = Path(__file__).resolve().parent
# Where configs and tools are. In a wheel .mim holds copies, in a clone links; without links it is the clone itself.
SHIPPED = _PACKAGE / '.mim' if (_PACKAGE / '.mim' / 'configs').is_dir() else _PACKAGE.parent
DISTILLER = 'mmlckd.LipschitzDistiller'


def name_packages() -> None:
    """Let ``mmlckd::...`` configs resolve, and ``mmseg::...`` with OneDL's packages.

    MMEngine has a list of modules and the distributions that they come from. It lacks this package, and has mmseg by
    upstream's name alone; OneDL's is ``onedl-mmsegmentation``.
    """
    packages = mmengine_config_utils.MODULE2PACKAGE
    packages['mmlckd'] = 'mmlckd'
    try:
        distribution('mmsegmentation')
    except PackageNotFoundError:
        packages['mmseg'] = 'onedl-mmsegmentation'


def find_file(path: str) -> Path | None:
    """The file of that path, in the working folder or else among what this package ships; None if in neither.

    ``configs/...`` and ``tools/...`` are shipped. Data, weights and work folders are the user's.
    """
    own = Path(path).expanduser()
    if own.is_file():
        return own
    shipped = SHIPPED / path
    is_shipped = Path(path).parts[:1] in (('configs',), ('tools',)) and shipped.is_file()
    return shipped.resolve() if is_shipped else None


def tool_command(command: str) -> str:
    """A config's command, ``python tools/NAME.py ...``, in the form that works in the working folder.

    Where that folder has no such file it is ``python -m mmlckd NAME ...``, which takes the tool from this package.
    """
    words = command.split(maxsplit=2)
    if len(words) < 2 or words[0] != 'python' or Path(words[1]).is_file() or find_file(words[1]) is None:
        return command
    return ' '.join(['python -m mmlckd', Path(words[1]).stem, *words[2:]])


def read_config(path: str) -> Config:
    """Read a config from a path, or by its name in another package (``mmdet::...``, ``mmpretrain::...``).

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: It cannot be read.
    """
    found = find_file(str(path))
    if found is None and '::' not in str(path):
        raise FileNotFoundError(
            f'config {str(path)!r} does not exist, neither in the working folder nor among those of mmlckd: name a file'
        )
    try:
        return Config.fromfile(found) if found else get_config(str(path))
    except Exception as error:  # a config is a program: anything may go wrong in it
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        raise ValueError(f'config {str(path)!r} cannot be read: {type(root).__name__}: {root}') from error


def override(config: Config, options: dict[str, Any]) -> Config:
    """The config with the fields of a command line, dotted name to value.

    Raises:
        ValueError: A field is beneath something that has none, or its first part is a misspelt one.
    """
    known = {*config, *inspect.signature(Runner).parameters}
    for name, value in options.items():
        first = name.partition('.')[0]
        close = difflib.get_close_matches(first, known, n=1, cutoff=0.75)
        if first not in known and close:
            raise ValueError(f'--cfg-options has {name!r}, and there is no field {first!r}: is it {close[0]!r}?')
        try:
            config.merge_from_dict({name: value})
        except (KeyError, TypeError, AttributeError) as error:
            reason = str(error.args[0])[:200]
            raise ValueError(
                f'--cfg-options has {name!r}, which does not fit what the config has there: {reason}'
            ) from error
    return config


def bare_model(config: Config) -> ConfigDict:
    """The model dict of the plain network: the student of a distillation config, else the model itself.

    It carries its own scope and preprocessor, so it builds in any other config's context.

    Raises:
        ValueError: A distillation config has no student.
    """
    model = copy.deepcopy(config.model)
    if is_distiller(model):
        if not isinstance(model.get('student'), dict):
            raise ValueError(
                'model.student is missing: give the model dict of the network to train, for example {{_base_.model}}'
            )
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


def host_of(config: Config) -> str | None:
    """The library that the plain network of a config is from: its scope or, where none is set, its class's package."""
    if config.get('default_scope'):
        return config.default_scope
    kind = class_of(bare_model(config).get('type'), MODELS)
    return None if kind is None else kind.__module__.partition('.')[0]


def is_distiller(model: dict) -> bool:
    """Whether a model dict is that of a distilled student, however its type is given."""
    return same_type(model.get('type'), MODELS, MODELS.get(DISTILLER))
