"""The Lipschitz report of a classifier and of a detector, from the command line."""

from __future__ import annotations

import json

import analyze_lipschitz
import pytest
import torch
from conftest import GUIDED, ROOT, TEACHER, run, save_untrained
from mmengine.registry import init_default_scope

from mmlckd.config import read_config


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
    assert list(record['networks']) == ['student', 'student alone', 'teacher']
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
    assert 'product bound' in printed and 'accuracy %, PGD 2' in text and 'for images of 28 x 28 px' in text
    assert (
        'centred maps, before any connectors' in text
        and '- teacher: `backbone.layer2.0.bn1`, `backbone.layer3.0.bn1`' in text
    )
    for name in ('pairs', 'layers', 'local', 'robustness'):
        assert (tmp_path / 'one' / f'{name}.png').stat().st_size > 10_000
    again, _ = report(tmp_path / 'two', GUIDED, student, *options)
    assert again == record


@pytest.mark.parametrize('task', ['faster_rcnn', 'deeplabv3plus'])
def test_of_a_detector_and_a_segmentor_the_backbone(task, devkit, tmp_path):
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


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights')
    return (save_untrained(GUIDED, folder / 'student.pth'), save_untrained(TEACHER, folder / 'teacher.pth'))


@pytest.mark.parametrize(
    'spec',
    [
        TEACHER,
        dict(config=TEACHER, norm_stats='batch'),
        dict(
            model=dict(
                type='mmpretrain.ImageClassifier',
                data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'),
                backbone=dict(type='mmlckd.WideResNet', depth=16, widen_factor=2),
                neck=dict(type='mmpretrain.GlobalAveragePooling'),
                head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=128),
            )
        ),
    ],
)
def test_a_teacher_in_any_form_is_analysed(spec, weights):
    student, teacher = weights
    init_default_scope('mmpretrain')
    config = read_config(GUIDED)
    config.model.teacher = spec
    args = arguments('--teacher', teacher)
    args.checkpoint = str(student)
    networks = analyze_lipschitz.load_networks(config, args, ['backbone.bn'], ['backbone.bn'])
    assert list(networks) == ['student', 'teacher'] and networks['teacher'][1:] == (str(teacher), ['backbone.bn'])
    saved = torch.load(teacher)['state_dict']['backbone.conv1.weight']
    assert torch.equal(networks['teacher'][0].backbone.conv1.weight, saved)
    assert networks['teacher'][0].backbone.bn.track_running_stats  # the analysis is of evaluation mode


def test_networks_that_are_not_there_are_named_before_any_analysis(weights):
    init_default_scope('mmpretrain')
    args = arguments('--alone', 'nowhere.pth')
    args.checkpoint = str(weights[0])
    with pytest.raises(FileNotFoundError, match="checkpoint 'nowhere.pth' does not exist"):
        analyze_lipschitz.load_networks(read_config(GUIDED), args, None, None)
    args = arguments('--teacher', weights[1])
    args.checkpoint = str(weights[1])
    with pytest.raises(ValueError, match='has no teacher: give a config that distils'):
        analyze_lipschitz.load_networks(read_config(TEACHER), args, None, None)


def test_norms_are_centred_as_in_the_loss():
    for recipe, center in ((GUIDED, True), ('configs/lckd/cifar100_wrn28-4_to_wrn16-2.py', False)):
        student, teacher, found = analyze_lipschitz.transmitting_norms_of(read_config(recipe))
        assert found is center and len(student) == len(teacher) == 3


def test_images_are_drawn_from_all_over_the_data_set():
    dataset = [dict(inputs=index) for index in range(1000)]  # as in class folders: ten classes, one after another
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=16, collate_fn=lambda items: [item['inputs'] for item in items]
    )
    indices, batches = analyze_lipschitz.draw_images(loader, 64, 0)
    assert sum(batches, []) == indices == sorted(set(indices)) and [len(batch) for batch in batches] == [16] * 4
    assert len({index // 100 for index in indices}) == 10  # the chance to miss one is 10 * 0.9 ** 64, one in a hundred
    assert analyze_lipschitz.draw_images(loader, 64, 0)[0] == indices != analyze_lipschitz.draw_images(loader, 64, 1)[0]
    assert len(analyze_lipschitz.draw_images(loader, 2000, 0)[0]) == 1000
