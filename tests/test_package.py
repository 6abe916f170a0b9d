"""Versions, registries, and what is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT

import mmlckd
from mmlckd.registry import HOOKS, MODELS


@pytest.mark.parametrize(
    'version, works', [('1.13.1', False), ('2.0.0', True), ('2.1.2+cu121', True), ('2.11.0', True)]
)
def test_versions_that_cannot_work_are_refused(version, works):
    package = SimpleNamespace(__name__='torch', __version__=version)
    if works:
        mmlckd._check_versions([(package, '2.0.0')])
    else:
        with pytest.raises(ImportError, match=f'needs torch >=2.0.0 and found {version}: install a later one'):
            mmlckd._check_versions([(package, '2.0.0')])


def test_registered_names():
    for name in ('LipschitzKDLoss', 'OFDLoss', 'LogitsKDLoss', 'LipschitzDistiller', 'WideResNet'):
        assert MODELS.get(f'mmlckd.{name}') is not None
    for name in ('SpectralNormHook', 'RandomStateHook'):
        assert HOOKS.get(f'mmlckd.{name}') is not None


def test_type_checkers_find_the_annotations():
    assert (Path(mmlckd.__file__).parent / 'py.typed').is_file()


HOSTS = ('mmlckd.backbones', 'mmlckd.datasets')  # they need mmpretrain's models, which import it themselves
IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if 'matplotlib' in sys.modules:
        sys.exit(f'{name} imports matplotlib')
"""


def test_only_figures_need_matplotlib():
    """Importing it takes a quarter of a second."""
    paths = [path.relative_to(ROOT).with_suffix('').parts for path in (ROOT / 'mmlckd').rglob('*.py')]
    names = sorted('.'.join(path).removesuffix('.__init__') for path in paths if 'figure' not in path[-1])
    names = [name for name in names if not name.startswith(HOSTS)]
    assert len(names) > 50
    result = subprocess.run([sys.executable, '-c', IMPORT, *names], cwd=ROOT, text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
