"""Annotations, read before training: faults that a host library drops in silence, or only meets later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmengine.registry import DATASETS

from mmlckd.registry import class_of

from .annotation_files import check_files, given_classes, in_question, names_of, path_of, root_of, text_of
from .coco_annotations import check_coco


def check_annotations(dataset: dict, scope: str | None) -> None:
    """Read the annotations of a data set without wrappers, if its format is one of :data:`FORMATS`.

    Args:
        dataset: Its config.
        scope: The scope that its type is looked up in.

    Raises:
        FileNotFoundError: A list, an image or an annotation is missing.
        ValueError: One cannot be understood, or its classes are not those of the data set.
    """
    with DATASETS.switch_scope_and_registry(dataset.get('_scope_') or scope) as registry:
        kind: Any = class_of(dataset.get('type'), registry)
    check = FORMATS.get(_format(kind))
    if check is not None and dataset.get('ann_file'):
        check(dataset, kind)


def _format(kind: Any) -> str:
    """The class that reads the annotations, by its package and name."""
    for base in getattr(kind, '__mro__', ()):
        if 'load_data_list' in vars(base):
            return f'{base.__module__.partition(".")[0]}.{base.__name__}'
    return ''


def check_image_list(dataset: dict, kind: type) -> None:
    """A list as mmpretrain's CustomDataset reads it: a file name a line, and behind a space its label."""
    path = path_of(dataset)
    with_label = dataset.get('with_label', True)
    for number, line in enumerate(text_of(path).splitlines(), 1):
        where = f'line {number} of {path}'
        if not line.strip():
            raise ValueError(f'{where} is empty: take it out')
        name, _, label = line.strip().rpartition(' ')
        if with_label and not (name and label.isascii() and label.isdigit()):
            raise ValueError(
                f'{where} is {line.strip()[:60]!r}: write a file name, a space and a label from 0 on, such as '
                "'cats/0001.png 3'"
            )


def check_boxes(dataset: dict, kind: Any) -> None:
    """A VOC devkit as mmdet's XMLDataset reads it: it skips objects of unknown classes in silence."""
    path, names = path_of(dataset), names_of(dataset)
    root = root_of(dataset) / (dataset.get('data_prefix') or {}).get('sub_data_root', '')
    images, annotations = (
        root / dataset.get(field, default)
        for field, default in (('img_subdir', 'JPEGImages'), ('ann_subdir', 'Annotations'))
    )
    check_files(images, [f'{name}.jpg' for name in names], 'image', path)
    check_files(annotations, [f'{name}.xml' for name in names], 'annotation', path)
    classes = [*kind.METAINFO.get('classes', ()), *(given_classes(dataset) or ())]
    for name in names:
        _check_objects(annotations / f'{name}.xml', classes)


def _check_objects(path: Path, classes: Sequence[str]) -> None:
    try:
        nodes = ElementTree.parse(path).getroot().findall('object')
    except ElementTree.ParseError as error:
        raise ValueError(
            f'annotation {path} is no XML ({error}): unpack the devkit anew, or take it out of the list'
        ) from error
    for node in nodes:
        try:
            _ = [float(node.findtext(f'bndbox/{side}', '')) for side in ('xmin', 'ymin', 'xmax', 'ymax')]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f'annotation {path} has an object whose bndbox is not four numbers xmin, ymin, xmax, ymax: '
                'correct it, or take it out of the list'
            ) from error
        label = node.findtext('name')
        if label not in classes:
            raise ValueError(
                f"annotation {path} has an object of class {label!r}, which is none of the dataset's {len(classes)}"
                f"{in_question(label, classes)}: correct it, or name it in the dataset's metainfo.classes"
            )


def check_masks(dataset: dict, kind: type) -> None:
    """A list as mmseg's data sets read it: a name a line, of an image and of its mask."""
    path, names = path_of(dataset), names_of(dataset)
    for what, key, ending in (('image', 'img', '.jpg'), ('mask', 'seg_map', '.png')):
        folder = root_of(dataset) / (dataset.get('data_prefix') or {}).get(f'{key}_path', '')
        ending = dataset.get(f'{key}_suffix', ending)
        check_files(folder, [name + ending for name in names], what, path)


# By the class that reads the annotations, in whatever class of the user's it is inherited.
FORMATS: dict[str, Callable[[dict, type], None]] = {
    'mmpretrain.CustomDataset': check_image_list,
    'mmdet.XMLDataset': check_boxes,
    'mmdet.CocoDataset': check_coco,
    'mmseg.BaseSegDataset': check_masks,
}
