"""Markers that tests get by what they name, so that nobody has to write them.

- ``process``: the test, its fixtures or a helper of its module calls ``conftest.run``, or names ``subprocess`` or
  ``multiprocessing``.
- ``ops``: the test, or a helper, fixture, table row or parameter of it, names mmdet or a detector. With upstream's
  packages mmseg or a segmentor too: its mmseg imports mmcv's operators even where it does not use them.
- ``slow``: its file goes through all recipes. Other slow tests have the marker written above them.
"""

from __future__ import annotations

import dis
import inspect
import multiprocessing
import re
import subprocess
from collections.abc import Callable, Iterator, ValuesView
from importlib.metadata import PackageNotFoundError, distribution
from types import CodeType

import pytest

ALL_RECIPES = ('test_configs.py', 'test_docs.py', 'test_model_zoo.py')


def is_upstream() -> bool:
    """Whether mmseg is upstream's: OneDL's distributions have other names."""
    try:
        distribution('mmsegmentation')
    except PackageNotFoundError:
        return False
    return True


DETECTORS = re.compile('mmdet|detection|rcnn|retinanet')
SEGMENTORS = re.compile(r'mmcv\.ops|mmseg|segment|deeplab|upernet')
NEED_OPERATORS = [DETECTORS, SEGMENTORS] if is_upstream() else [DETECTORS]


def add_markers(item: pytest.Function, run: Callable) -> None:
    """Mark a test; ``run`` is what starts tools."""
    fixtures = [definitions[-1].func for definitions in item._fixtureinfo.name2fixturedefs.values()]
    starters = (run, subprocess, multiprocessing)
    if any(value is starter for value in values(item.function, *fixtures) for starter in starters):
        item.add_marker(pytest.mark.process)
    parameters = list(item.callspec.params.values()) if hasattr(item, 'callspec') else []
    named = [row for name in parameters for row in rows(item.function, name)]
    own = [function for function in fixtures if function.__module__ == item.function.__module__]
    found = [*map(str, parameters), *words(item.function, *own, *functions_in([*parameters, *named]))]
    if any(pattern.search(word) for word in found for pattern in NEED_OPERATORS):
        item.add_marker(pytest.mark.ops)
    if item.path.name in ALL_RECIPES:
        item.add_marker(pytest.mark.slow)


def rows(function: Callable, name: object) -> list[object]:
    """What a parameter names in the tables, global dicts, that a test reads."""
    tables = [value for value in values(function) if isinstance(value, dict)] if isinstance(name, str) else []
    return [table[name] for table in tables if name in table]


def functions_in(parameters: list[object]) -> Iterator[Callable]:
    """The functions among parameters, and in those that are tuples, lists or dicts."""
    for parameter in parameters:
        parts = parameter.values() if isinstance(parameter, dict) else parameter
        yield from filter(inspect.isfunction, parts if isinstance(parts, (tuple, list, ValuesView)) else [parts])


def values(*functions: Callable) -> Iterator[object]:
    """What the names in these functions, and in the helpers that they reach in their modules, stand for."""
    waiting, seen = [inspect.unwrap(function) for function in functions], set()
    while waiting:
        function = waiting.pop()
        if function in seen:
            continue
        seen.add(function)
        yield function
        for name in global_names(function):
            value = function.__globals__.get(name)
            if inspect.isfunction(value) and value.__module__ == function.__module__:
                waiting.append(value)
            elif value is not None:
                yield value


def words(*functions: Callable) -> Iterator[str]:
    """Names, modules and strings in these functions, and in the helpers that they reach in their modules."""
    modules = {function.__module__ for function in functions}
    for value in values(*functions):
        if inspect.isfunction(value) and value.__module__ in modules:
            for code in codes(value):
                yield from code.co_names
                yield from strings(code.co_consts)


def strings(constants: tuple) -> Iterator[str]:
    """The strings among constants, and in the tuples among them."""
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple):
            yield from strings(constant)


def global_names(function: Callable) -> set[str]:
    """The global names that a function reads; attributes of the same name do not count."""
    instructions = (instruction for code in codes(function) for instruction in dis.get_instructions(code))
    return {instruction.argval for instruction in instructions if instruction.opname == 'LOAD_GLOBAL'}


def codes(function: Callable) -> Iterator[CodeType]:
    """The code of a function, and of those inside it."""
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
