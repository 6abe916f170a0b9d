"""Files that annotations consist of, and the files that they name."""

from __future__ import annotations

import difflib
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path


def root_of(dataset: dict) -> Path:
    """The folder that a data set's other paths start from."""
    return Path(dataset.get('data_root') or '').expanduser()


def path_of(dataset: dict) -> Path:
    """The annotation file."""
    return root_of(dataset) / dataset['ann_file']


def text_of(path: Path) -> str:
    """What a file holds.

    Raises:
        ValueError: It is no text.
    """
    try:
        return path.read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is no text ({error.reason}): copy or make it again') from error


def names_of(dataset: dict) -> list[str]:
    """The names that a devkit's list has.

    Raises:
        FileNotFoundError, ValueError: There is no such list, or it is empty.
    """
    path = path_of(dataset)
    if not path.is_file():
        unpack = 'unpack the devkit anew'
        convert = "convert SBD with mmseg's tools/dataset_converters/voc_aug.py"
        raise FileNotFoundError(
            f'{path}, a list of images, does not exist: {convert if path.stem == "aug" else unpack}, '
            'or name another as ann_file'
        )
    names = [line.strip() for line in text_of(path).splitlines() if line.strip()]
    if not names:
        raise ValueError(f'{path}, a list of images, is empty: unpack the devkit anew, or name another as ann_file')
    return names


def given_classes(dataset: dict) -> Sequence[str] | None:
    """The classes that the config writes down, itself or by the name of a file."""
    classes = (dataset.get('metainfo') or {}).get('classes')
    return text_of(Path(classes)).splitlines() if isinstance(classes, str) else classes


def check_files(folder: Path, names: Sequence[str], what: str, listed_in: Path) -> None:
    """See that files exist, looking once into each folder.

    Raises:
        FileNotFoundError: One does not.
    """
    by_folder = defaultdict(list)
    for name in names:
        by_folder[(folder / name).parent].append(name)
    missing = []
    for parent, inside in by_folder.items():
        there = {entry.name for entry in os.scandir(parent)} if parent.is_dir() else ()
        missing += [name for name in inside if Path(name).name not in there]
    if missing:
        more = f' (and {len(missing) - 1} more)' if len(missing) > 1 else ''
        raise FileNotFoundError(
            f'{what} {folder / missing[0]}{more} does not exist and {listed_in} lists it: '
            'unpack the devkit anew, or take it out of that list'
        )


def in_question(name: str | None, names: Sequence[str]) -> str:
    """The name that may have been meant, as a question to add to a sentence."""
    close = difflib.get_close_matches(str(name), names, n=1)
    return f' (is it {close[0]!r}?)' if close else ''
