"""Annotations in the COCO format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .annotation_files import check_files, given_classes, in_question, path_of, root_of, text_of


def check_coco(dataset: dict, kind: Any) -> None:
    """A JSON file as mmdet's CocoDataset reads it: it skips boxes of unknown categories in silence."""
    path = path_of(dataset)
    try:
        content = json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise ValueError(f'annotation file {path} is no JSON ({error}): copy or make it again') from error
    if isinstance(content, dict) and dataset.get('test_mode'):
        content.setdefault('annotations', [])  # COCO's own test set has none
    _check_tables(content, path)
    categories = {category['id']: category['name'] for category in content['categories']}
    given = given_classes(dataset)
    classes = list(kind.METAINFO.get('classes', ()) if given is None else given)
    write = f"name the file's own in the dataset's metainfo=dict(classes=({_some(categories.values())}))"
    absent = [name for name in classes if name not in categories.values()]
    if absent:
        others = f' and {len(absent) - 1} more'
        meant = in_question(absent[0], list(categories.values()))
        raise ValueError(
            f'annotation file {path} has no category {absent[0]!r}{others if len(absent) > 1 else ""} of the '
            f"dataset's {len(classes)} classes{meant if len(absent) == 1 else ''}: {write}"
        )
    used = {categories.get(box['category_id'], box['category_id']) for box in content['annotations']}
    foreign = sorted(map(str, used - set(classes)))
    if foreign and given is None:  # classes that are written down and leave some out are a choice
        raise ValueError(
            f'annotation file {path} has boxes of {foreign[0]!r}, '
            f"which is none of the dataset's {len(classes)} classes: {write}"
        )
    images = root_of(dataset) / (dataset.get('data_prefix') or {}).get('img', '')
    check_files(images, [image['file_name'] for image in content['images']], 'image', path)


# What mmdet reads of each entry.
_TABLES = dict(
    images=('id', 'file_name', 'height', 'width'),
    annotations=('id', 'image_id', 'category_id', 'bbox', 'area'),
    categories=('id', 'name'),
)


def _check_tables(content: Any, path: Path) -> None:
    """The tables of the COCO format and, in each of their entries, the fields that are read."""
    for table, fields in _TABLES.items():
        if not isinstance(content, dict) or not isinstance(content.get(table), list):
            raise ValueError(
                f'annotation file {path} has no list of {table}: write it in the COCO format, with {", ".join(_TABLES)}'
            )
        for i, entry in enumerate(content[table]):
            absent = [field for field in fields if not isinstance(entry, dict) or field not in entry]
            if absent:
                raise ValueError(
                    f'annotation file {path} has no {absent[0]} in {table}[{i}]: write {", ".join(fields)} for each'
                )


def _some(names: Iterable[str]) -> str:
    """The first names of a tuple, as Python writes them."""
    first, *others = map(repr, names)
    return f'{", ".join([first, *others[:2]])}{", ..." if len(others) > 2 else ","}'
