"""Markdown: tables, and pages with marked places that a tool fills."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence

START = re.compile(r'^<!-- table: (\w+) -->$', re.MULTILINE)
PLACE = re.compile(r'^(<!-- table: (\w+) -->\n)((?:(?!<!-- table: ).)*?)(^<!-- end -->)$', re.MULTILINE | re.DOTALL)


def table(header: Sequence, rows: Sequence[Sequence]) -> str:
    """A Markdown table; numbers stand to the right, and the first column to the left."""
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def paragraph(text: str, **indents: str) -> str:
    """A paragraph in lines of the pages' width; indents as ``textwrap.fill`` takes them."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False, **indents)


def item(text: str) -> str:
    """An item of a list, in lines of the pages' width."""
    return paragraph(text, initial_indent='- ', subsequent_indent='  ')


def marked_names(text: str) -> list[str]:
    """The names of a page's marked places, in their order.

    Raises:
        ValueError: A place has no end.
    """
    names, whole = START.findall(text), [match[2] for match in PLACE.finditer(text)]
    for name in names:
        if name not in whole:
            raise ValueError(f'the place for the table {name!r} has no end: close it with a line <!-- end -->')
    return names


def filled(text: str, tables: dict[str, Callable[[], str]]) -> str:
    """The page with every marked place filled anew.

    Args:
        text: The page.
        tables: What makes the content of a place, by the place's name.

    Raises:
        ValueError: A place has no end, or a name that nothing makes.
    """
    for name in marked_names(text):
        if name not in tables:
            raise ValueError(f'nothing makes the table {name!r}: use one of {", ".join(map(repr, tables))}')
    return PLACE.sub(lambda match: f'{match[1]}{tables[match[2]]()}\n{match[4]}', text)
