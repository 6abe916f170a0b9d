"""Who may import whom: every part of the package only itself and the parts before it, so that there is no circle."""

from __future__ import annotations

import ast
from importlib.util import resolve_name

from conftest import ROOT

LAYERS = [
    'version',
    'switches',
    'compatibility',
    'validation',
    'registry',
    'config',
    'unwrapped',
    'functional',
    'taps',
    'checkpoints',
    'backbones',
    'datasets',
    'optim',
    'losses',
    'distillers',
    'analysis',
    'hooks',
    'resumability',
    'study',
    'cli',
    'preparing',
    'recipes',
    '__main__',
]


def imported(path, package):
    """Full names of what a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name('.' * node.level + (node.module or ''), package)
            yield from (f'{origin}.{name.name}' for name in node.names)


def test_no_arrow_points_upwards():
    package = ROOT / 'mmlckd'
    for path in package.rglob('*.py'):
        *folders, name = path.relative_to(package).with_suffix('').parts
        layer = folders[0] if folders else name
        if layer == '__init__':
            continue
        assert layer in LAYERS, f'{layer} has no place in LAYERS'
        for target in imported(path, '.'.join(['mmlckd', *folders])):
            top, _, rest = target.partition('.')
            other = rest.partition('.')[0]
            if top == 'mmlckd' and other in LAYERS:
                assert LAYERS.index(other) <= LAYERS.index(layer), f'{path} imports {target}'
