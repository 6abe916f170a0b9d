"""What a run needs before anything is built or written: operators, data, sound annotations, the teacher's weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from mmengine.config import Config

from mmlckd.config import host_of, is_distiller, tool_command
from mmlckd.validation import check_dataset

from .annotations import check_annotations

LOADERS = ('train_dataloader', 'val_dataloader')


def check_prerequisites(config: Config, loaders: Sequence[str] = LOADERS) -> None:
    """Look for what a run of this config needs.

    A config may say how a missing path is made, in ``prerequisites = {path: command}``.

    Raises:
        ImportError: A detector is asked for and mmcv has no compiled operators.
        FileNotFoundError: A data folder, a file that an annotation names, or a checkpoint does not exist.
        ValueError: A data set's field has a wrong form, or an annotation is broken or of an unknown class.
    """
    _check_operators(config)
    datasets = _local_datasets(config, loaders)
    for field, dataset in datasets:
        check_dataset(field, dataset)
    for path, field in needed_paths(config, loaders).items():
        if not is_there(path):
            raise FileNotFoundError(f'{field} is {path!r}, which does not exist: {_remedy(config, path, field)}')
    if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':  # one process reads for all
        for dataset in {str(dataset): dataset for _, dataset in datasets}.values():
            check_annotations(dataset, config.get('default_scope'))


def needed_paths(config: Config, loaders: Sequence[str] = LOADERS) -> dict[str, str]:
    """The local paths that a run of this config reads, each with the field that names it; data comes first."""
    needed = {}
    for field, dataset in reversed(_local_datasets(config, loaders)):
        if dataset.get('data_root'):
            needed[dataset['data_root']] = f'{field}.data_root'
    if 'train_dataloader' in loaders:
        for field, path in _checkpoints(config).items():
            if path and '://' not in path:
                needed[path] = field
    return needed


def _checkpoints(config: Config) -> dict[str, str | None]:
    """The fields that name checkpoints, with what they name."""
    fields = {}
    if is_distiller(config.model):
        teachers = {'teacher': config.model.get('teacher')}
        teachers.update({f'teachers.{name}': spec for name, spec in (config.model.get('teachers') or {}).items()})
        for name, spec in teachers.items():
            fields[f'model.{name}.checkpoint'] = spec.get('checkpoint') if isinstance(spec, dict) else None
    fields['load_from'] = config.get('load_from')
    return fields


def is_there(path: str) -> bool:
    """Whether a needed path exists, seen from the working folder: data and weights are the user's."""
    return Path(path).expanduser().exists()


def _remedy(config: Config, path: str, field: str) -> str:
    command = (config.get('prerequisites') or {}).get(path)
    if command:
        return f'make it with `{tool_command(command)}`'
    return f'put or link it there, or name another with --cfg-options {field}=...'


def _local_datasets(config: Config, loaders: Sequence[str]) -> list[tuple[str, dict]]:
    found: list[tuple[str, dict]] = []
    for name in loaders:
        found += leaf_datasets((config.get(name) or {}).get('dataset'), f'{name}.dataset')
    return [(field, dataset) for field, dataset in found if not dataset.get('backend_args')]


# What imports mmcv's operators. OneDL's mmseg does without, unless a model needs them.
_IMPORTING_OPERATORS = dict(mmdet='mmcv._ext', mmseg='mmseg.utils')


def _check_operators(config: Config) -> None:
    host: str | None = 'a class of this config'
    try:
        host = host_of(config)
        if host in _IMPORTING_OPERATORS:
            import_module(_IMPORTING_OPERATORS[host])
    except ImportError as error:  # also where a config names mmdet's classes themselves
        if 'mmcv._ext' not in str(error):
            raise
        raise ImportError(
            f"{host} needs mmcv's compiled operators, and this environment's mmcv was built without them: run "
            f'`{tool_command("python tools/install_mmcv.py")}` (10 to 15 minutes on two cores, once)'
        ) from error


def leaf_datasets(node: dict | None, field: str) -> Iterator[tuple[str, dict]]:
    """The data sets inside wrappers such as RepeatDataset and ConcatDataset, with their fields."""
    node = node or {}
    inner = []
    if isinstance(node.get('dataset'), dict):
        inner = [(f'{field}.dataset', node['dataset'])]
    elif isinstance(node.get('datasets'), (list, tuple)):
        inner = [(f'{field}.datasets.{i}', item) for i, item in enumerate(node['datasets'])]
    if node and not inner:
        yield field, node
    for name, item in inner:
        yield from leaf_datasets(item, name)
