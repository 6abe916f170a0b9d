"""What pip installs: built from an sdist, used from a folder that is not the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from conftest import ALONE, GUIDED, ROOT, TEACHER

LEFT_OUT = shutil.ignore_patterns(
    '.*_cache', '.git', '.hypothesis', '.venv*', 'build', 'data', 'work_dirs', '*.egg-info'
)
BUILD = 'import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))'


def build(source, kind, out):
    out.mkdir(exist_ok=True)
    command = [sys.executable, '-c', BUILD, f'build_{kind}', str(out)]
    result = subprocess.run(command, cwd=source, text=True, capture_output=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return out / result.stdout.splitlines()[-1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('built')
    shutil.copytree(ROOT, folder / 'clone', symlinks=True, ignore=LEFT_OUT)
    sdist = build(folder / 'clone', 'sdist', folder / 'dist')
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / 'unpacked')
    (unpacked,) = (folder / 'unpacked').iterdir()
    return build(unpacked, 'wheel', folder / 'dist')


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
    """A folder that the wheel is installed into, the only place that mmlckd is imported from."""
    folder = tmp_path_factory.mktemp('site')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope='module')
def outside(mnist, tmp_path_factory):
    """A user's folder: data, and configs of the demo that are short."""
    folder = tmp_path_factory.mktemp('outside')
    (folder / 'data').mkdir()
    (folder / 'data' / 'mnist5k').symlink_to(mnist)
    for name in (ALONE, TEACHER, GUIDED):
        short = f"""
_base_ = 'mmlckd::{name.removeprefix('configs/')}'
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader = dict(dataset=dict(ann_file='meta/train_100.txt'))
val_dataloader = dict(dataset=dict(ann_file='meta/train_100.txt'))
test_dataloader = dict(dataset=dict(ann_file='meta/train_100.txt'))
default_hooks = dict(checkpoint=dict(interval=1))
"""
        if name == GUIDED:
            short += "model = dict(teacher=dict(checkpoint='work_dirs/mnist5k_wrn16-2/epoch_1.pth'))\n"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(short)
    return folder


@pytest.fixture
def mmlckd(site, outside):
    """Run ``mmlckd ...`` in the user's folder."""

    def run(*command, module='mmlckd', cwd=outside):
        environment = {**os.environ, 'PYTHONPATH': str(site)}
        command = [sys.executable, '-m', module, *map(str, command)]
        return subprocess.run(command, cwd=cwd, text=True, capture_output=True, env=environment)

    return run


def test_the_wheel_holds_what_it_ships_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name.removeprefix('mmlckd/.mim/') for name in names if name.startswith('mmlckd/.mim/')}
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*.py')}
    tools = {str(path.relative_to(ROOT)) for path in (ROOT / 'tools').glob('*.[ps]*')}
    assert configs | tools | {'model-index.yml', 'configs/lckd/metafile.yml', 'requirements/openmmlab.txt'} <= shipped
    assert not [name for name in names if '__pycache__' in name or '/records/' in name or name.startswith('tests')]


def test_the_demo_and_the_tools_from_a_users_folder(mmlckd, outside):
    result = mmlckd('demo', '--work-dir', 'work_dirs')
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert 'mmlckd train configs/demo/mnist5k_wrn16-2.py' in result.stdout
    folder = outside / 'work_dirs/mnist5k_wrn16-2_to_wrn10-1'
    assert json.loads((folder / 'demo.json').read_text())['task'] == 'classification'

    result = mmlckd('test', GUIDED, folder / 'epoch_1.pth')
    assert result.returncode == 0 and 'accuracy/top1' in result.stdout, result.stderr[-3000:]
    result = mmlckd('export_student', folder / 'epoch_1.pth', 'student.pth')
    assert result.returncode == 0 and len(list(outside.glob('student-*.pth'))) == 1, result.stderr[-3000:]


def test_a_shipped_config_trains_by_its_name(mmlckd, outside):
    options = ['--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.dataset.ann_file=meta/train_100.txt']
    result = mmlckd('train', 'mmlckd::study/recipes/student_16px.py', *options)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (outside / 'work_dirs/student_16px/last_checkpoint').is_file()


def test_what_is_missing_is_made_by_a_command_that_works_there(mmlckd, tmp_path):
    result = mmlckd('train', GUIDED, cwd=tmp_path)
    assert result.returncode == 1 and 'make it with `mmlckd prepare_digits`' in result.stderr
    assert not list(tmp_path.iterdir())


def test_names_of_tools(mmlckd, tmp_path):
    assert 'Tools: analyze_lipschitz, demo, dist_launch' in mmlckd('--help').stdout
    result = mmlckd('trian')
    assert result.returncode == 1 and result.stderr.startswith("error: there is no tool 'trian': choose one of")
    result = mmlckd('dist_train')
    assert result.returncode == 2 and 'CONFIG GPUS' in result.stderr


def test_mim_trains_tests_and_runs(mmlckd, tmp_path):
    pytest.importorskip('mim')
    options = ['--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.dataset.ann_file=meta/train_100.txt']
    result = mmlckd('train', 'mmlckd', 'student_16px.py', '--work-dir', tmp_path, *options, module='mim')
    assert result.returncode == 0 and (tmp_path / 'last_checkpoint').is_file(), result.stderr[-3000:]
    checkpoint = (tmp_path / 'last_checkpoint').read_text()
    result = mmlckd('test', 'mmlckd', 'student_16px.py', '--checkpoint', checkpoint, module='mim')
    assert result.returncode == 0 and 'accuracy/top1' in result.stdout + result.stderr, result.stderr[-3000:]
    result = mmlckd('run', 'mmlckd', 'export_student', checkpoint, tmp_path / 'student.pth', module='mim')
    assert result.returncode == 0 and len(list(tmp_path.glob('student-*.pth'))) == 1, result.stderr[-3000:]
