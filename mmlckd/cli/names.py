"""Names that a user may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from mmengine.registry import Registry


def not_known(kind: str, registry: Registry) -> str:
    """The sentence for a type that a registry does not have: what to write in its place."""
    scope, _, name = kind.rpartition('.')
    written = _names_to_write(registry, scope)
    if name in written:
        return f'type {kind!r} is not known: write {written[name]!r}'
    close = [written[match] for match in _matches(name, written)]
    offer = f'the closest are {", ".join(map(repr, close))}' if close else _some(written.values())
    return f'type {kind!r} is not known: {offer}, or import its module by custom_imports'


def _names_to_write(registry: Registry, scope: str) -> dict[str, str]:
    """All names of a registry and its relatives, by their last part, each as a config of that registry writes it.

    A name from another package needs that package's scope. Where the user wrote a scope, every name is shown with one,
    and names of that scope come first.
    """
    ancestors = [registry]
    while ancestors[-1].parent is not None:
        ancestors.append(ancestors[-1].parent)
    relatives = [*ancestors, *ancestors[-1].children.values()]
    written: dict[str, str] = {}
    for relative in sorted(relatives, key=lambda relative: relative.scope != scope):
        _fill(relative)
        plain = not scope and relative in ancestors
        for name in relative.module_dict:
            written.setdefault(name, name if plain else f'{relative.scope}.{name}')
    return written


def _fill(registry: Registry) -> None:
    """Let a registry import the modules that fill it, as far as they can be imported here."""
    try:
        registry.import_from_location()
    except ImportError:  # such as mmdet's without compiled operators
        return


def closest(name: str, names: Iterable[str]) -> str:
    """The names that are most like one, in words; where none is, a few of them."""
    close = _matches(name, names)
    return f'the closest are {", ".join(map(repr, close))}' if close else _some(names)


def _matches(name: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, list(dict.fromkeys(names)), n=3)


def _some(names: Iterable[str]) -> str:
    return f'there are {", ".join(list(names)[:8]) or "others"}'
