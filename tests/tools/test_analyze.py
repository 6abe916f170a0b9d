"""The Lipschitz report of a classifier and of a detector, from the command line."""

from __future__ import annotations

import json

import analyze_lipschitz
import pytest
from conftest import GUIDED, ROOT, TEACHER, run, save_untrained


def report(folder, config, student, *more):
    result = run('tools/analyze_lipschitz.py', config, student, '--out', folder, *more)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads((folder / 'report.json').read_text()), result.stdout


def test_a_classifier_beside_its_teacher_and_itself_alone(mnist, tmp_path):
    student = save_untrained(GUIDED, tmp_path / 'student.pth')
    teacher = save_untrained(TEACHER, tmp_path / 'teacher.pth')
    options = [
        '--teacher',
        teacher,
        '--alone',
        student,
        '--compare',
        f'KD={student}',
        f'KD + OFD={student}',
        '--images',
        '3',
        '--num-iters',
        '4',
        '--noise',
        '0',
        '32',
        '--epsilon',
        '2',
        '--cfg-options',
        f'test_dataloader.dataset.data_root={mnist}',
        'test_dataloader.batch_size=2',
    ]
    record, printed = report(tmp_path / 'one', GUIDED, student, *options)
    assert list(record['networks']) == ['student', 'student alone', 'KD', 'KD + OFD', 'teacher']
    for network in record['networks'].values():
        assert (
            len(network['local']) == 3
            and all(len(pair) == 3 for pair in network['pairs'])
            and len(network['pairs']) == 2
        )
        assert max(network['local']) < network['bound'] and not network['unbounded']
        assert [len(network['robustness'][kind]) for kind in ('noise', 'fgsm', 'pgd')] == [2, 1, 1]
        assert all(layer['operator_norm'] > 0 and layer['stable_rank'] >= 1 for layer in network['layers'].values())
    assert record['networks']['student']['local'] == record['networks']['student alone']['local']
    text = (tmp_path / 'one' / 'report.md').read_text()
    distances = [line for line in text.splitlines() if line.startswith('| its distance to the teacher')][0].split(' | ')
    assert distances[-1] == '0.00 |' and distances[1] == distances[2] == distances[3] == distances[4] != '0.00'
    assert 'product bound' in printed and 'accuracy %, PGD 2' in text and 'for images of 28 x 28 px' in text
    assert (
        'centred maps, before any connectors' in text
        and '- teacher: `backbone.layer2.0.bn1`, `backbone.layer3.0.bn1`' in text
    )
    for name in ('pairs', 'layers', 'local', 'robustness'):
        assert (tmp_path / 'one' / f'{name}.png').stat().st_size > 10_000
    again, _ = report(tmp_path / 'two', GUIDED, student, *options)
    assert again == record


@pytest.mark.parametrize('task, taps', [('faster_rcnn', ['model.taps=auto']), ('deeplabv3plus', [])])
def test_of_a_detector_and_a_segmentor_the_backbone(task, taps, devkit, tmp_path):
    config = f'configs/demo/digits_{task}_r18x32_to_r18x16.py'
    student = save_untrained(config, tmp_path / 'student.pth')
    root = f'{devkit}/' if task == 'faster_rcnn' else f'{devkit}/VOC2012'
    teacher = save_untrained(f'configs/demo/digits_{task}_r18x32.py', tmp_path / 'teacher.pth')
    record, _ = report(
        tmp_path / 'out',
        config,
        student,
        '--teacher',
        teacher,
        '--untrained',
        '--images',
        '2',
        '--num-iters',
        '3',
        '--cfg-options',
        f'test_dataloader.dataset.data_root={root}',
        'test_dataloader.batch_size=2',
        *taps,
    )
    assert list(record['networks']) == ['student', 'untrained', 'teacher']
    for network in record['networks'].values():
        assert network['of'] == 'last map of the backbone' and 'robustness' not in network
        assert max(network['local']) < network['bound'] and len(network['pairs']) >= 3
    assert not (tmp_path / 'out' / 'robustness.png').exists()


def arguments(*more):
    return analyze_lipschitz.make_parser().parse_args([GUIDED, 'student.pth', *map(str, more)])


def test_wrong_numbers_are_named(tmp_path):
    result = run('tools/analyze_lipschitz.py', GUIDED, tmp_path / 'none.pth', '--images', '0')
    assert result.returncode == 1 and result.stderr.strip().endswith('error: --images is 0: at least 1 is needed')


@pytest.mark.parametrize(
    'more, message',
    [
        (['--noise', '4', '-8'], '--noise has -8: strengths are pixel values from 0 on'),
        (['--epsilon', '-4'], '--epsilon has -4'),
        (['--out', ROOT / 'README.md'], ' is a file: name a folder'),
    ],
)
def test_wrong_arguments_are_named(more, message):
    with pytest.raises((ValueError, NotADirectoryError), match=message):
        analyze_lipschitz.check(arguments(*more))


@pytest.mark.parametrize(
    'values, message',
    [
        (['KD'], "argument --compare: 'KD' is not of the form NAME=CHECKPOINT"),
        (['=kd.pth'], "'=kd.pth' is not of the form NAME=CHECKPOINT"),
        (['KD=a.pth', 'KD=b.pth'], "--compare has the name 'KD' twice"),
        (['student alone=a.pth', '--alone', 'b.pth'], "--compare has the name 'student alone' twice"),
    ],
)
def test_names_that_are_no_names(values, message, tmp_path):
    result = run('tools/analyze_lipschitz.py', GUIDED, tmp_path / 'x.pth', '--compare', *values)
    assert result.returncode != 0 and message in result.stderr and 'Traceback' not in result.stderr
