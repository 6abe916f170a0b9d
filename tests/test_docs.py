"""The README: its commands run, its paths exist, its tables are the records'."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, run
from mmengine.config import Config

sys.path.insert(0, str(ROOT / 'tools' / 'maintenance'))  # its table makers
README = (ROOT / 'README.md').read_text()
COMMANDS = [
    line for block in re.findall(r'```bash\n(.*?)```', README, re.DOTALL) for line in block.splitlines() if line
]


@pytest.fixture(scope='module')
def clone(tmp_path_factory, mnist):
    """A working copy whose data is there already and whose trainings are one short epoch."""
    folder = tmp_path_factory.mktemp('clone') / 'mmlckd'
    files = subprocess.run(['git', 'ls-files'], cwd=ROOT, text=True, capture_output=True, check=True).stdout.split()
    for name in files:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / 'data').mkdir()
    (folder / 'data' / 'mnist5k').symlink_to(mnist)
    for path in ('configs/_base_/schedules/demo_60e.py', 'configs/demo/mnist5k_wrn16-2.py'):
        text = (folder / path).read_text()
        (folder / path).write_text(re.sub(r'max_epochs=\d+, val_interval=\d+', 'max_epochs=1, val_interval=1', text))
    for path in ('configs/demo/mnist5k_wrn16-2.py', 'configs/demo/mnist5k_wrn10-1.py'):
        text = (folder / path).read_text().replace('meta/train.txt', 'meta/train_100.txt')
        (folder / path).write_text(text.replace('interval=20', 'interval=1'))
    text = (folder / 'configs/demo/mnist5k_wrn16-2_to_wrn10-1.py').read_text()
    (folder / 'configs/demo/mnist5k_wrn16-2_to_wrn10-1.py').write_text(text.replace('epoch_5.pth', 'epoch_1.pth'))
    return folder


def test_every_command_of_the_tools_runs_in_order(clone):
    environment = dict(PYTHONPATH=str(clone), PORT='29577')
    commands = [
        command for command in COMMANDS if 'tools/' in command and not re.search('benchmarks|/voc_|study', command)
    ]
    assert len(commands) >= 7
    for command in commands:
        result = run(*shlex.split(command.replace('epoch_60.pth', 'epoch_1.pth'))[1:], cwd=clone, **environment)
        assert result.returncode == 0, f'{command}\n{result.stderr[-3000:]}'
    assert list((clone / 'work_dirs').glob('student-*.pth'))


@pytest.mark.parametrize('command', [command for command in COMMANDS if '/voc_' in command])
def test_commands_on_voc_ask_for_voc(command, tmp_path):
    # what they do on a devkit is tests/tools/test_voc.py's; without VOC every process of them ends in the sentence that names it
    _, tool, config, _ = shlex.split(command)
    result = run(ROOT / tool, ROOT / config, '1', cwd=tmp_path, PORT='29583')
    assert (
        result.returncode
        and "data_root is 'data/VOCdevkit/', which does not exist: put or link it there" in result.stderr
    ), result.stderr


@pytest.mark.parametrize('command', [command for command in COMMANDS if 'tools/study.py' in command])
def test_commands_of_studies_run(command, clone, tmp_path):
    # on one training of one short epoch; whole studies are tests/tools/test_study.py's
    small = [
        '--data',
        'configs/demo/mnist5k_wrn16-2_to_wrn10-1.py',
        '--methods',
        'alone',
        '--seeds',
        '30',
        '--work-dir',
        tmp_path,
    ]
    result = run(*shlex.split(command)[1:], *small, cwd=clone, PYTHONPATH=str(clone))
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.rglob('record.json'))) == 1


@pytest.mark.parametrize('command', [['lipschitz_loss.py'], ['train_step.py', '--workloads', 'demo_classification']])
def test_the_benchmarks_run(command, tmp_path):
    result = run(
        f'tools/benchmarks/{command[0]}',
        *command[1:],
        '--batch',
        '1',
        '--rounds',
        '2',
        '--out',
        tmp_path / 'record.json',
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'record.json').is_file()


def test_the_soak_counts_what_could_grow(mnist, tmp_path):
    result = run(
        'tools/benchmarks/soak.py',
        '--iterations',
        '40',
        '--every',
        '1',
        '--data',
        mnist,
        '--work-dir',
        tmp_path,
        '--out',
        tmp_path / 'record.json',
    )
    readings = json.loads((tmp_path / 'record.json').read_text())[
        'readings'
    ]  # written whatever grew: so short a run is still warming up
    assert result.returncode == 0 or 'what grew over the second half' in result.stderr, result.stderr
    assert readings['last']['iter'] == 40
    assert readings['last']['forward_hooks'] == 0  # taps hang on modules within a forward only
    for count in ('runner_hooks', 'scalars'):
        assert readings['last'][count] == readings['middle'][count] > 0, count


@pytest.mark.parametrize('command', [command for command in COMMANDS if command.startswith('make')])
def test_make_targets_exist(command):
    # `make test` is what runs this and `make demo` is its longer twin: here make only says what it would do
    result = subprocess.run([*shlex.split(command), '-n'], cwd=ROOT, text=True, capture_output=True)
    assert result.returncode == 0 and ('pytest' in result.stdout or 'tools/demo.py' in result.stdout)


def test_the_package_installs_as_the_readme_says(tmp_path):
    assert 'pip install -e .' in COMMANDS
    result = run('-m', 'pip', 'install', '--dry-run', '--no-build-isolation', '--no-deps', '--quiet', '-e', ROOT)
    assert result.returncode == 0, result.stderr


def test_the_config_shown_is_the_demos():
    block = re.search(r'```python\n(_base_.*?)```', README, re.DOTALL)[1]
    path = ROOT / 'configs/demo/shown_in_readme.py'
    path.write_text(block)
    try:
        shown = Config.fromfile(path).model
    finally:
        path.unlink()
    assert shown == Config.fromfile(ROOT / 'configs/demo/mnist5k_wrn16-2_to_wrn10-1.py').model


def test_paths_exist():
    for path in set(re.findall(r'(?:configs|tools|tests|requirements)/[\w./-]+\.(?:py|sh|txt|png)', README)):
        assert (ROOT / path).is_file(), path


def test_tables_are_those_of_the_records():
    from page_tables import rendered

    assert rendered() == README


def test_pages_of_the_recipes_are_those_of_the_configs_and_records():
    from model_zoo import ZOO, written

    for name, text in written().items():
        assert (ZOO / name).read_text() == text, name
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    models = [model for path in index['Import'] for model in yaml.safe_load((ROOT / path).read_text())['Models']]
    assert [ROOT / model['Config'] for model in models] == sorted(ZOO.glob('*.py'))


@pytest.mark.parametrize(
    'command',
    [
        line
        for block in re.findall(r'```bash\n(.*?)```', (ROOT / 'configs/lckd/README.md').read_text(), re.DOTALL)
        for line in block.splitlines()
        if 'train' in line
    ],
)
def test_commands_of_the_recipes_page_name_recipes(command):
    # they want CIFAR-100, ImageNet or VOC; tests/tools run the same recipes on small sets
    assert (ROOT / shlex.split(command)[2]).is_file()
