"""Config values as the text of a config."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

WIDTH = 120


def fields_text(fields: dict[str, Any]) -> str:
    """``key=value, ...`` of a dict."""
    return ', '.join(f'{name}={value_text(value)}' for name, value in fields.items())


def value_text(value: Any) -> str:
    """A value as it is written in a config."""
    if isinstance(value, dict):
        return f'dict({fields_text(value)})'
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(map(value_text, value))}]'
    return repr(value)


def list_text(values: Iterable[Any], indent: str) -> list[str]:
    """The lines of a list between its brackets, filled up to the width of a page."""
    lines = ['']
    for value in values:
        item = f'{value_text(value)}, '
        if lines[-1] and len(indent + lines[-1] + item) > WIDTH:
            lines.append('')
        lines[-1] += item
    lines[-1] = lines[-1].removesuffix(', ')
    return [indent + line.rstrip() for line in lines]
