"""Studies end to end, on shortened recipes: records, tables, figure, and what is not run again."""

from __future__ import annotations

import importlib.util
import json

import pytest
from conftest import ROOT, run

from mmlckd.config import read_config
from mmlckd.study import Study
from mmlckd.study.plan import restricted

RECIPE = f"""
_base_ = '{ROOT}/configs/study/recipes/mnist5k_100.py'
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader = dict(dataset=dict(data_root='MNIST'))
val_dataloader = dict(dataset=dict(data_root='MNIST', ann_file='meta/train_100.txt'))
test_dataloader = dict(dataset=dict(data_root='MNIST', ann_file='meta/train_100.txt'))
model = dict(teacher=dict(checkpoint=None))
custom_hooks = [dict(type='EMAHook', momentum=0.3)]  # the averages are what is validated and tested
"""
STUDY = """
data = {'digits': 'recipe.py'}
methods = [[], ['kd'], ['kd', 'lipschitz']]
seeds, selection_seeds = [10, 11], [0]
grid = dict(kd=[1.], lipschitz=[0.1, 1.])
weights = 'weights.json'
aims = [dict(of=['kd', 'lipschitz'], over=['kd'], measure='test', gain=-101.)]
"""


@pytest.fixture(scope='module')
def folder(mnist, tmp_path_factory):
    folder = tmp_path_factory.mktemp('study')
    (folder / 'recipe.py').write_text(RECIPE.replace('MNIST', str(mnist)))
    (folder / 'mine.py').write_text(STUDY)
    return folder


def study(folder, *arguments):
    return run(ROOT / 'tools/study.py', *arguments, '--work-dir', folder / 'work', cwd=folder)


def test_a_study_from_selection_to_figure(folder):
    result = study(folder, 'mine.py', '--select')
    assert result.returncode == 0, result.stderr
    # in a file a line tells of each training
    assert 'selection 2/2: KD + Lipschitz, digits, seed 0' in result.stdout and '0/0' not in result.stdout
    chosen = json.loads((folder / 'weights.json').read_text())
    assert chosen['seeds'] == [0] and set(chosen['methods']['kd+lipschitz']['weights']) == {'kd', 'lipschitz'}
    selected = [json.loads(path.read_text()) for path in (folder / 'work/selection').rglob('record.json')]
    # of one weight for KD there is nothing to choose
    assert len(selected) == 2 and all('validation' in record and 'test' not in record for record in selected)

    result = study(folder, 'mine.py')
    assert result.returncode == 0, result.stderr
    assert 'Paired differences' in result.stdout and 'KD + Lipschitz' in result.stdout
    records = json.loads((folder / 'work/study_mine.json').read_text())['records']
    assert [(record['seed'], record['method']) for record in records] == [
        (s, m) for s in (10, 11) for m in ([], ['kd'], ['kd', 'lipschitz'])
    ]
    for record in records:
        measured = {'train', 'noise 32', 'blur 1', 'contrast 0.5', 'FGSM 8', 'PGD 8', 'log loss', 'calibration error'}
        assert measured | {'local constant', 'steps', 'step_ms', 'commit', 'versions', 'machine'} <= set(record)
        # the three splits have the same images here
        assert record['test'] == record['validation'] == pytest.approx(record['train'])
        assert 0 <= record['test'] <= 100
        assert record['local constant'] > 0 and len(record['curves']['loss']) == 1
    assert records[2]['weights'] == chosen['methods']['kd+lipschitz']['weights']
    assert 'Lipschitz over KD, test: -101.00 or more on every data set: met' in result.stdout.replace('\n', ' ')
    for picture in ('study_mine.png', 'study_mine_cost.png'):
        assert (folder / 'work' / picture).stat().st_size > 10_000
    assert not list((folder / 'work').rglob('*.pth'))  # weights go when the record is written

    # finished cells are read, and a cell that is missing is run to the same numbers
    written = {path: path.stat().st_mtime_ns for path in (folder / 'work').rglob('record.json')}
    victim = next(path for path in written if 'kd+lipschitz' in str(path) and 'seed11' in str(path))
    victim.unlink()
    assert study(folder, 'mine.py').returncode == 0
    again = json.loads((folder / 'work/study_mine.json').read_text())['records']
    assert again[-1]['test'] == records[-1]['test'] and again[-1]['curves'] == records[-1]['curves']
    assert all(path.stat().st_mtime_ns == time for path, time in written.items() if path != victim)


def test_own_recipe_methods_and_seeds_on_the_command_line(folder):
    options = ['--data', 'recipe.py', '--methods', 'ofd', '--seeds', '20', '--jobs', '1']
    result = study(folder, '--preset', 'quick', *options)
    assert result.returncode == 0, result.stderr
    records = json.loads((folder / 'work/study_quick.json').read_text())['records']
    assert [(record['data'], record['method'], record['seed']) for record in records] == [('recipe', ['ofd'], 20)]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['mine.py', '--methods', 'kdd'], "has the loss 'kdd'"),
        (['mine.py', '--jobs', '0'], '--jobs is 0'),
        (['mine.py', '--data', 'nothing.py'], "config 'nothing.py' does not exist"),
        (['mine.py', '--seeds', '0'], 'which are selection_seeds too'),
        (['mine.py', '--select', '--data', 'recipe.py'], 'chooses the weights of the whole study'),
    ],
)
def test_wrong_input_ends_in_a_sentence(folder, arguments, message):
    result = study(folder, *arguments)
    assert result.returncode == 1 and message in result.stderr and 'Traceback' not in result.stderr


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('study_tool', ROOT / 'tools/study.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_data_and_teachers_are_made_first_and_once(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare, train = 'python tools/prepare_digit_scenes.py', 'python tools/train.py configs/demo/'
    made = {
        prepare: 'data/digit_scenes/VOCdevkit/VOC2012',
        f'{train}digits_faster_rcnn_r18x32.py': 'work_dirs/digits_faster_rcnn_r18x32/epoch_5.pth',
        f'{train}digits_deeplabv3plus_r18x32.py': 'work_dirs/digits_deeplabv3plus_r18x32/epoch_2.pth',
    }
    ran = []

    def run_command(command, threads, console):
        ran.append((command, threads))
        (tmp_path / made[command]).mkdir(parents=True)

    monkeypatch.setattr(tool, 'run_command', run_command)
    monkeypatch.setattr(tool, 'check_prerequisites', lambda config: None)
    monkeypatch.setattr(tool.os, 'cpu_count', lambda: 8)
    recipes = [f'configs/study/recipes/{task}.py' for task in ('detection', 'segmentation', 'detection')]
    tool.prepare(recipes, 2, None)
    # one alone has all cores, two share them
    assert ran[0] == (prepare, 8) and sorted(ran[1:]) == sorted((command, 4) for command in [*made][1:])
    tool.prepare(recipes, 2, None)
    assert len(ran) == 3


def test_a_command_of_the_shell_is_left_to_the_user(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='curl'):
        tool.prepare(['configs/teachers/cifar100_wrn28-4.py'], 2, None)


def test_the_examples_of_the_help_can_run(tool):
    lines = [line.split('#')[0].split() for line in tool.__doc__.splitlines()]
    examples = [line[2:] for line in lines if line[1:3] == ['tools/study.py', '--preset']]
    assert len(examples) > 3
    for example in examples:
        args = tool.make_parser().parse_args(example)
        preset = Study(read_config(f'configs/study/{args.preset}.py'), args.preset)
        cells = restricted(preset, args.data, args.methods, args.seeds).cells()
        assert all(cell.config().model for cell in cells[: len(preset.data) * len(preset.methods)])


def test_a_failing_cell_names_its_log(folder, mnist):
    (folder / 'broken.py').write_text(
        RECIPE.replace('MNIST', str(mnist)) + "optim_wrapper = dict(optimizer=dict(type='NoSuchOptimizer'))\n"
    )
    result = study(folder, 'mine.py', '--data', 'broken.py', '--seeds', '30')
    assert result.returncode == 1 and 'log.txt' in result.stderr, result.stderr
    log = next((folder / 'work/broken').rglob('log.txt'))
    assert 'NoSuchOptimizer' in log.read_text()
