"""Markers that tests get by what they name, so that nobody has to write them.

- ``process``: the test, its fixtures or a helper of its module calls ``conftest.run``, or names ``subprocess`` or
  ``multiprocessing``.
- ``ops``: the test or a helper of its module names mmdet, or one of its parameters is a detector's name.
- ``slow``: its file goes through all recipes. Other slow tests have the marker written above them.
"""

from __future__ import annotations

import dis
import inspect
import multiprocessing
import re
import subprocess
from collections.abc import Callable, Iterator
from types import CodeType

import pytest

DETECTORS = re.compile('mmdet|detection|rcnn|retinanet')
ALL_RECIPES = ('test_configs.py', 'test_docs.py', 'test_model_zoo.py')


def add_markers(item: pytest.Function, run: Callable) -> None:
    """Mark a test; ``run`` is what starts tools."""
    fixtures = [definitions[-1].func for definitions in item._fixtureinfo.name2fixturedefs.values()]
    starters = (run, subprocess, multiprocessing)
    if any(value is starter for value in values(item.function, *fixtures) for starter in starters):
        item.add_marker(pytest.mark.process)
    parameters = item.callspec.params.values() if hasattr(item, 'callspec') else ()
    if any(DETECTORS.search(word) for word in (*map(str, parameters), *words(item.function))):
        item.add_marker(pytest.mark.ops)
    if item.path.name in ALL_RECIPES:
        item.add_marker(pytest.mark.slow)


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


def words(function: Callable) -> Iterator[str]:
    """Names, modules and strings in a test and in the helpers that it reaches in its module."""
    for value in values(function):
        if inspect.isfunction(value) and value.__module__ == function.__module__:
            for code in codes(value):
                yield from code.co_names
                yield from (constant for constant in code.co_consts if isinstance(constant, str))


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
