"""Every path in what the package ships is found from a user's own folder, and leads nothing to be written there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, TEACHER
from mmengine.hub import get_config

import mmlckd
from mmlckd.cli import needed_paths
from mmlckd.config import SHIPPED, find_file, read_config, tool_command
from mmlckd.study import Study

RUNS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ('baselines', 'demo', 'lckd', 'teachers', 'study/recipes')
    for path in (ROOT / 'configs' / folder).glob('*.py')
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def strings(node):
    """All strings in a config, keys apart."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from strings(value)


@pytest.mark.slow
def test_paths_of_the_configs():
    for name in RUNS:
        config = read_config(name)
        commands = config.get('prerequisites', {})
        for path in needed_paths(config):
            assert path.startswith(('data/', 'work_dirs/')), f'{name}: {path} is not in a folder of the user'
        for command in commands.values():
            files = re.findall(r'(?:tools|configs)/[\w./-]+', command)
            assert all(map(find_file, files)), f'{name}: {command}'
            assert tool_command(command).startswith('mmlckd ') or not files, f'{name}: {command}'
        for text in strings(config.to_dict()):
            if text.startswith(('configs/', 'tools/')):
                assert find_file(text), f'{name}: {text}'
            assert str(ROOT) not in text and 'site-packages' not in text, f'{name}: {text}'


@pytest.mark.parametrize('command, there', [
    ('python tools/train.py configs/demo/mnist5k_wrn16-2.py', 'mmlckd train configs/demo/mnist5k_wrn16-2.py'),
    ('python tools/prepare_digits.py --source sklearn', 'mmlckd prepare_digits --source sklearn'),
    ('bash tools/dist_train.sh CONFIG 8', 'mmlckd dist_train CONFIG 8'),
    ('python tools/of_mine.py', 'python tools/of_mine.py'),
    ('wget tools/train.py', 'wget tools/train.py'),
    ('python', 'python'),
])  # fmt: skip
def test_a_command_as_it_works_in_a_users_folder(command, there):
    assert tool_command(command) == there


def test_a_users_own_file_comes_first(tmp_path):
    for name in ('tools/train.py', 'configs/demo/mnist5k_wrn16-2.py'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('model = dict(type="Mine")\n')
    assert find_file('tools/train.py').read_text() == 'model = dict(type="Mine")\n'
    assert tool_command('python tools/train.py x.py') == 'python tools/train.py x.py'
    assert read_config('configs/demo/mnist5k_wrn16-2.py').model.type == 'Mine'


@pytest.mark.parametrize('path', ['model-index.yml', 'requirements/openmmlab.txt', 'data/x', 'work_dirs/x/epoch_1.pth'])
def test_only_configs_and_tools_are_looked_for_in_the_package(path):
    assert find_file(path) is None


def test_a_study_finds_its_weights():
    study = Study(read_config('configs/study/readme.py'), 'readme')
    assert study.chosen(next(iter(study.data)))
    assert not (study.weights_file.is_absolute() or study.weights_file.is_file())


def test_an_editable_installation_resolves_names_of_configs(tmp_path, monkeypatch):
    """Its site-packages has the distribution's description and not the package."""
    description = tmp_path / f'mmlckd-{mmlckd.__version__}.dist-info'
    description.mkdir()
    (description / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: mmlckd\nVersion: {mmlckd.__version__}\n')
    (description / 'top_level.txt').write_text('mmlckd\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert Path(get_config('mmlckd::demo/mnist5k_wrn16-2.py').filename).resolve() == ROOT / TEACHER
    (tmp_path / 'own.py').write_text("_base_ = 'mmlckd::demo/mnist5k_wrn16-2.py'\n")
    assert read_config('own.py').model == read_config(TEACHER).model


def test_mim_finds_each_config_by_its_name():
    """``mim train mmlckd NAME.py`` looks for that name in the whole package, and refuses one that is there twice."""
    package = [path.name for path in (ROOT / 'mmlckd').rglob('*.py')]
    shipped = [path.name for folder in ('configs', 'tools') for path in (SHIPPED / folder).resolve().rglob('*.py')]
    count = Counter(package + shipped)
    assert [name for name in RUNS if count[name.rpartition('/')[2]] != 1] == []
