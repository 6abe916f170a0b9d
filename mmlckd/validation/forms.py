"""Forms: the kinds of values that a field takes, each with its words."""

from __future__ import annotations

import dataclasses
import numbers
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import nn


def _no_parts(field: str, value: Any) -> Iterator[tuple[str, Any, Form]]:
    return iter(())


@dataclasses.dataclass(frozen=True)
class Form:
    """One kind of value.

    Args:
        one: What one is called: ('a number',); of several kinds, the words of each.
        many: What several are called: ('numbers',).
        takes: Whether a value is of this kind; what is inside it is not looked at.
        parts: What is inside a value of this kind: (field, value, form) of each part.
        example: A value to show, as the user would write it.

    Source: this project.
    """

    one: tuple[str, ...]
    many: tuple[str, ...]
    takes: Callable[[Any], bool]
    parts: Callable[[str, Any], Iterable[tuple[str, Any, Form]]] = _no_parts
    example: str | None = None

    def fault(self, field: str, value: Any, whom: str = '') -> str | None:
        """What is wrong with the value of a field, in one sentence that shows the right form; None if nothing is."""
        if not self.takes(value):
            example = f', such as {self.example}' if self.example else ''
            return f'{field} is {in_words(value)}: give {whom}{joined(self.one)}{example}'
        for name, part, form in self.parts(field, value):
            fault = form.fault(name, part)
            if fault is not None:
                return fault
        return None

    def such_as(self, example: Any) -> Form:
        """The same form, which shows that value."""
        return dataclasses.replace(self, example=example if isinstance(example, str) else repr(example))

    @classmethod
    def called(cls, one: str, many: str, takes: Callable[[Any], bool], parts: Callable = _no_parts) -> Form:
        """A form that is one kind of value."""
        return cls((one,), (many,), takes, parts)


def in_words(value: Any) -> str:
    """A value as a message shows it: short, and on one line."""
    if isinstance(value, nn.Module):
        return f'a built {type(value).__name__}'
    if isinstance(value, type):
        return f'the class {value.__name__}'
    return textwrap.shorten(repr(value), 80, placeholder=' ...')


def is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


ANYTHING = Form.called('a value', 'values', lambda value: True)
NONE = Form.called('None', 'None', lambda value: value is None)
FLAG = Form(('True', 'False'), ('True', 'False'), lambda value: isinstance(value, bool))
WHOLE = Form.called('a whole number', 'whole numbers', lambda value: _is_number(value, numbers.Integral))
NUMBER = Form.called('a number', 'numbers', lambda value: _is_number(value, numbers.Real))
TEXT = Form.called('a string', 'strings', lambda value: isinstance(value, str))
DICT = Form.called('a dict', 'dicts', lambda value: isinstance(value, dict))
LIST = Form.called('a list', 'lists', is_sequence)
MODULE = Form.called('a built module', 'built modules', lambda value: isinstance(value, nn.Module))
TYPE = Form(('a name', 'a class'), ('names', 'classes'), lambda value: isinstance(value, str) or callable(value))


def check_number(field: str, value: Any) -> None:
    """See that a value is a number; a flag is none.

    Raises:
        ValueError: It is not.
    """
    fault = NUMBER.fault(field, value)
    if fault is not None:
        raise ValueError(fault)


def any_of(*forms: Form) -> Form:
    """One of several forms; the first that takes a value looks inside it."""
    if ANYTHING in forms:
        return ANYTHING

    def takes(value: Any) -> bool:
        return any(form.takes(value) for form in forms)

    def parts(field: str, value: Any) -> Iterator[tuple[str, Any, Form]]:
        yield field, value, next(form for form in forms if form.takes(value))

    return Form(_words(form.one for form in forms), _words(form.many for form in forms), takes, parts)


def list_of(form: Form, length: int | None = None) -> Form:
    """A list or tuple of values of one form."""
    count = '' if length is None else f'{length} '

    def takes(value: Any) -> bool:
        return is_sequence(value) and length in (None, len(value))

    def parts(field: str, value: Any) -> Iterator[tuple[str, Any, Form]]:
        for i, item in enumerate(value):
            yield f'{field}[{i}]', item, form

    what = f'of {count}{joined(form.many)}'
    return Form.called(f'a list {what}', f'lists {what}', takes, parts)


def dict_of(form: Form) -> Form:
    """A dict of values of one form, by any names."""

    def parts(field: str, value: Any) -> Iterator[tuple[str, Any, Form]]:
        for name, item in value.items():
            yield f'{field}.{name}', item, form

    what = f'of {joined(form.many)}'
    return Form.called(f'a dict {what}', f'dicts {what}', DICT.takes, parts)


def record(**fields: Form) -> Form:
    """A dict whose fields have a form each; a field that is absent, or is none of these, is not looked at."""

    def parts(field: str, value: Any) -> Iterator[tuple[str, Any, Form]]:
        for name, form in fields.items():
            if name in value:
                yield f'{field}.{name}', value[name], form

    return dataclasses.replace(DICT, parts=parts)


def and_inside(form: Form, inside: Form) -> Form:
    """A form that also looks inside the values that another form takes."""

    def parts(field: str, value: Any) -> Iterator[tuple[str, Any, Form]]:
        if inside.takes(value):
            yield from inside.parts(field, value)
        yield from form.parts(field, value)

    return dataclasses.replace(form, parts=parts)


def joined(words: Sequence[str]) -> str:
    """Words as alternatives: 'a, b or c'."""
    *before, last = words
    return f'{", ".join(before)} or {last}' if before else last


def _words(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    words = dict.fromkeys(word for group in groups for word in group)
    return tuple(sorted(words, key=lambda word: word == 'None'))  # 'or None' comes last
