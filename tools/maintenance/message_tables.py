"""What wrong input is answered with: the cases that tests/cli/test_wrong_input.py runs, as tables."""

from __future__ import annotations

import ast
from pathlib import Path

CASES = Path(__file__).resolve().parents[2] / 'tests' / 'cli' / 'test_wrong_input.py'


def message_table(name: str) -> str:
    """A list of cases of that file as a table: what is wrong, what was given, and the answer or its beginning."""
    for node in ast.parse(CASES.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            cases = ast.literal_eval(node.value)
            lines = ['| wrong | given | `error: ` and |', '| --- | --- | --- |']
            return '\n'.join([*lines, *(f'| {case[0]} | {_code(case[1])} | {_code(case[2])} |' for case in cases)])
    raise ValueError(f'{CASES.name} has no list {name}: name one of its lists of cases')


def _code(text: str) -> str:
    """Text of one line as code in a cell, its folder of made-up files left out."""
    text = ' '.join(text.replace('{files}/', '').split()).replace('|', '\\|')
    return f'`` {text} ``' if '`' in text else f'`{text}`'
