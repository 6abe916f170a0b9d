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
# Configs and tools: copies in a wheel, links in a clone. A clone without symbolic links has them at its root.
SHIPPED = _PACKAGE / '.mim' if (_PACKAGE / '.mim' / 'configs').is_dir() else _PACKAGE.parent
DISTILLER = 'mmlckd.LipschitzDistiller'


def name_packages() -> None:
    """Let ``mmlckd::...`` configs resolve, and ``mmseg::...`` with OneDL's packages.

    MMEngine has a list of the packages that it knows. This one is not in it, and mmseg is by its old distribution name;
    the fork renamed it, as ``onedl-mmsegmentation``.
    """
    packages = mmengine_config_utils.MODULE2PACKAGE
    # A module of this package: MMEngine asks Python where a module is. A distribution's files upstream's MMEngine looks
    # for in site-packages, where an editable installation has none.
    packages['mmlckd'] = 'mmlckd.config'
    try:
        distribution('mmsegmentation')
    except PackageNotFoundError:
        packages['mmseg'] = 'onedl-mmsegmentation'


def find_file(path: str) -> Path | None:
    """The file of that path, seen from the working folder or else among what this package ships; None if in neither.

    Shipped are ``configs/...`` and ``tools/...``. Data, weights and work folders are the user's.
    """
    candidates = [Path(path).expanduser()]
    if Path(path).parts[:1] in (('configs',), ('tools',)):
        candidates.append(SHIPPED / path)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def tool_command(command: str) -> str:
    """A command, ``python tools/NAME.py ...`` or ``bash tools/NAME.sh ...``, as it works in the working folder.

    Where there is no such file it goes through the package's own command, ``mmlckd NAME ...``.
    """
    words = command.split(maxsplit=2)
    if len(words) < 2 or words[0] not in ('python', 'bash') or Path(words[1]).is_file() or find_file(words[1]) is None:
        return command
    return ' '.join(['mmlckd', Path(words[1]).stem, *words[2:]])


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
        config = Config.fromfile(found) if found else get_config(str(path))
    except Exception as error:  # a config is a program: anything may go wrong in it
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        raise ValueError(f'config {str(path)!r} cannot be read: {type(root).__name__}: {root}') from error
    return without_own_scope(config)


def without_own_scope(config: Config) -> Config:
    """The config, in which names without a scope are of ``default_scope`` again; changed in place.

    For a base ``mmlckd::...`` MMEngine writes ``_scope_='mmlckd'`` into every dict with a type. This package's configs
    are of mmpretrain, mmdet or mmseg, and write the scope of their own types.
    """
    waiting: list[Any] = [config._cfg_dict]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get('_scope_') == 'mmlckd':
                del node['_scope_']
            waiting.extend(node.values())
        elif isinstance(node, (list, tuple)):
            waiting.extend(node)
    return config


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
