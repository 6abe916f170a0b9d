"""What a run needs before anything is built or written: operators, data, sound VOC annotations, the teacher's weights."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

from mmengine.config import Config

from mmlckd.config import find_file, is_distiller


def check_prerequisites(config: Config, loaders: Sequence[str] = ('train_dataloader', 'val_dataloader')) -> None:
    """Look for what a run of this config needs.

    A config may say how a missing path is made, in ``prerequisites = {path: command}``.

    Raises:
        ImportError: A detector is asked for and mmcv has no compiled operators.
        FileNotFoundError: A data folder, a file of a VOC devkit, the teacher's checkpoint, or the one to start from is not there.
        ValueError: An annotation of a VOC devkit is broken, or names an unknown class.
    """
    if config.get('default_scope') == 'mmdet':
        _check_operators()
    for path, field in needed_paths(config, loaders).items():
        if not is_there(path):
            command = config.get('prerequisites', {}).get(path)
            remedy = (
                f'make it with `{command}`'
                if command
                else f'put or link it there, or name another with --cfg-options {field}=...'
            )
            raise FileNotFoundError(f'{field} is {path!r}, which does not exist: {remedy}')
    check = dict(mmdet=_check_boxes, mmseg=_check_masks).get(config.get('default_scope'))
    if check and os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':  # one process reads for all
        for dataset in {str(dataset): dataset for _, dataset in _local_datasets(config, loaders)}.values():
            check(dataset)


def needed_paths(config: Config, loaders: Sequence[str] = ('train_dataloader', 'val_dataloader')) -> dict[str, str]:
    """The local paths that a run of this config reads, data folders before checkpoints, each with the field that names it."""
    needed = {
        dataset['data_root']: f'{field}.data_root'
        for field, dataset in reversed(_local_datasets(config, loaders))
        if dataset.get('data_root')
    }
    if 'train_dataloader' in loaders:
        model = config.model if is_distiller(config.model) else {}
        teachers = {f'teachers.{name}': teacher for name, teacher in (model.get('teachers') or {}).items()}
        checkpoints = {
            f'model.{name}.checkpoint': teacher.get('checkpoint')
            for name, teacher in {'teacher': model.get('teacher'), **teachers}.items()
            if isinstance(teacher, dict)
        }
        checkpoints['load_from'] = config.get('load_from')
        needed.update({path: field for field, path in checkpoints.items() if path and '://' not in path})
    return needed


def is_there(path: str) -> bool:
    """Whether a needed path exists, seen from the working folder or from the repository's root."""
    return Path(path).expanduser().exists() or find_file(path) is not None


def _local_datasets(config: Config, loaders: Sequence[str]) -> list[tuple[str, dict]]:
    datasets = [
        item for name in loaders for item in leaf_datasets((config.get(name) or {}).get('dataset'), f'{name}.dataset')
    ]
    return [(field, dataset) for field, dataset in datasets if not dataset.get('backend_args')]


def _check_operators() -> None:
    try:
        import_module('mmcv._ext')
    except ImportError as error:
        raise ImportError(
            "mmdet needs mmcv's compiled operators, and this environment's mmcv was built without them: run "
            '`python tools/install_mmcv.py` (10 to 15 minutes on two cores, once)'
        ) from error


def leaf_datasets(node: dict | None, field: str) -> Iterator[tuple[str, dict]]:
    """The datasets inside wrappers such as RepeatDataset, ConcatDataset and MultiImageMixDataset, with their config fields."""
    node = node or {}
    inner = (
        [(f'{field}.dataset', node['dataset'])]
        if isinstance(node.get('dataset'), dict)
        else [(f'{field}.datasets.{i}', item) for i, item in enumerate(node.get('datasets') or ())]
    )
    if node and not inner:
        yield field, node
    for name, item in inner:
        yield from leaf_datasets(item, name)


def _listed(dataset: dict) -> tuple[Path, list[str], Path]:
    """The data folder of a dataset, the names its list has, and that list."""
    root = Path(dataset.get('data_root') or '').expanduser()
    path = root / dataset['ann_file']
    if not path.is_file():
        remedy = (
            "convert SBD with mmseg's tools/dataset_converters/voc_aug.py"
            if path.stem == 'aug'
            else 'unpack the devkit anew'
        )
        raise FileNotFoundError(f'{path}, a list of images, does not exist: {remedy}, or name another as ann_file')
    names = path.read_text().split()
    if not names:
        raise ValueError(f'{path}, a list of images, is empty: unpack the devkit anew, or name another as ann_file')
    return root, names, path


def _check_files(folder: Path, names: Sequence[str], what: str, ending: str, listed_in: Path) -> None:
    there = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else ()
    missing = [name for name in names if name + ending not in there]
    if missing:
        more = f' (and {len(missing) - 1} more)' if len(missing) > 1 else ''
        raise FileNotFoundError(
            f'{what} {folder / (missing[0] + ending)}{more} does not exist and {listed_in} lists it: '
            'unpack the devkit anew, or take it out of that list'
        )


def _check_boxes(dataset: dict) -> None:
    """A devkit as mmdet's VOCDataset reads it: it skips objects of unknown classes without a word."""
    from mmdet.datasets import XMLDataset
    from mmdet.registry import DATASETS

    kind = DATASETS.get(dataset['type'])
    if not (isinstance(kind, type) and issubclass(kind, XMLDataset)):
        return
    root, names, path = _listed(dataset)
    root = root / dataset.get('data_prefix', {}).get('sub_data_root', '')
    _check_files(root / dataset.get('img_subdir', 'JPEGImages'), names, 'image', '.jpg', path)
    annotations = root / dataset.get('ann_subdir', 'Annotations')
    _check_files(annotations, names, 'annotation', '.xml', path)
    classes = [*kind.METAINFO.get('classes', ()), *(dataset.get('metainfo') or {}).get('classes', ())]
    for name in names:
        _check_annotation(annotations / f'{name}.xml', classes)


def _check_annotation(path: Path, classes: Sequence[str]) -> None:
    try:
        objects = [
            (
                node.findtext('name'),
                [float(node.findtext(f'bndbox/{side}')) for side in ('xmin', 'ymin', 'xmax', 'ymax')],
            )
            for node in ElementTree.parse(path).getroot().findall('object')
        ]
    except ElementTree.ParseError as error:
        raise ValueError(
            f'annotation {path} is no XML ({error}): unpack the devkit anew, or take it out of the list'
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'annotation {path} has an object whose bndbox is not four numbers xmin, ymin, xmax, ymax: correct it, or take '
            'it out of the list'
        ) from error
    for label, _ in objects:
        if label not in classes:
            close = difflib.get_close_matches(str(label), classes, n=1)
            raise ValueError(
                f"annotation {path} has an object of class {label!r}, which is none of the dataset's {len(classes)}"
                f"{f' (is it {close[0]!r}?)' if close else ''}: correct it, or name it in the dataset's metainfo.classes"
            )


def _check_masks(dataset: dict) -> None:
    """A devkit as mmseg's PascalVOCDataset reads it."""
    if dataset['type'].split('.')[-1] not in ('PascalVOCDataset', 'BaseSegDataset') or not dataset.get('ann_file'):
        return
    root, names, path = _listed(dataset)
    for what, key, ending in (('image', 'img', '.jpg'), ('mask', 'seg_map', '.png')):
        folder = root / (dataset.get('data_prefix') or {}).get(f'{key}_path', '')
        _check_files(folder, names, what, dataset.get(f'{key}_suffix', ending), path)
