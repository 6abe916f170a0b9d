"""The arguments of registered classes, checked against the annotations that they have anyway."""

from __future__ import annotations

import ast
import functools
import inspect
from typing import Any

from .forms import (
    ANYTHING,
    DICT,
    FLAG,
    LIST,
    MODULE,
    NONE,
    NUMBER,
    TEXT,
    WHOLE,
    Form,
    and_inside,
    any_of,
    dict_of,
    list_of,
)
from .schemas import EXAMPLES, SCHEMAS

NAMED = {
    'None': NONE,
    'bool': FLAG,
    'int': WHOLE,
    'float': NUMBER,
    'str': TEXT,
    'dict': DICT,
    'Dict': DICT,
    'list': LIST,
    'List': LIST,
    'tuple': LIST,
    'Tuple': LIST,
    'Sequence': LIST,
    'Module': MODULE,
}


def checked(cls: type) -> type:
    """The class itself, which from now on checks the types of the arguments that it is built with.

    An argument's form is its annotation, read as text, so that it may be written for a newer Python than the one that
    runs. A part of an annotation that names no form, such as ``Tensor``, takes any value. An argument whose default is
    None takes None, whatever its annotation.

    Raises:
        ValueError: When the class is built: an argument has another form; the message shows the right one.

    Source: this project.
    """
    maker = '__new__' if '__new__' in vars(cls) else '__init__'
    build = getattr(cls, maker)
    signature = inspect.signature(build)
    forms = forms_of(cls, signature)

    @functools.wraps(build)
    def checking(owner, *args, **kwargs):
        try:
            given = signature.bind_partial(owner, *args, **kwargs).arguments
        except TypeError:
            given = {}  # the call itself says what is wrong
        for name, value in given.items():
            fault = forms[name].fault(name, value, f'{cls.__name__} ') if name in forms else None
            if fault is not None:
                raise ValueError(fault)
        return build(owner, *args, **kwargs)

    setattr(cls, maker, staticmethod(checking) if maker == '__new__' else checking)
    return cls


def forms_of(cls: type, signature: inspect.Signature) -> dict[str, Form]:
    """The form of each annotated argument, with an example: the one of its schema, or the default."""
    forms = {}
    for name, parameter in signature.parameters.items():
        if parameter.annotation is parameter.empty:
            continue
        form, schema = form_of(parameter.annotation), SCHEMAS.get(cls.__name__, {}).get(name)
        if parameter.default is None:
            form = any_of(form, NONE)
        example = EXAMPLES.get(f'{cls.__name__}.{name}')
        if schema is not None:
            form, example = and_inside(form, schema), schema.example
        elif example is None and isinstance(parameter.default, (int, float, str)) and form != FLAG:
            example = repr(parameter.default)
        forms[name] = form if example is None else form.such_as(example)
    return forms


def form_of(annotation: Any) -> Form:
    """The form that an annotation means: ``'int | None'``, ``Sequence[float]``, ``'dict[str, dict | None]'``."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    try:
        return _form(ast.parse(text, mode='eval').body)
    except SyntaxError:  # a user's words
        return ANYTHING


def _form(node: ast.expr) -> Form:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return any_of(_form(node.left), _form(node.right))
    if isinstance(node, ast.Constant):
        return NAMED.get(str(node.value), ANYTHING)
    if isinstance(node, ast.Subscript) and _name(node.value) in ('Optional', 'Union'):
        forms = [_form(part) for part in getattr(node.slice, 'elts', [node.slice])]
        return any_of(*forms, NONE) if _name(node.value) == 'Optional' else any_of(*forms)
    if isinstance(node, ast.Subscript):
        return _form_of_container(_form(node.value), node.slice)
    return NAMED.get(_name(node), ANYTHING)


def _name(node: ast.expr) -> str:
    return getattr(node, 'id', getattr(node, 'attr', ''))


def _form_of_container(container: Form, inner: ast.expr) -> Form:
    parts = [part for part in getattr(inner, 'elts', [inner]) if getattr(part, 'value', None) is not Ellipsis]
    if container == DICT:
        return dict_of(_form(parts[-1]))
    if container == LIST and len(parts) == 1:
        return list_of(_form(parts[0]))
    return list_of(_form(parts[0]), len(parts)) if container == LIST else ANYTHING
