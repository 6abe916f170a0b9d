"""Which networks and images a config and its checkpoints give to an analysis."""

from __future__ import annotations

import pytest
import torch
from conftest import save_untrained
from mmengine.registry import init_default_scope

from mmlckd.analysis.networks import compared_maps, draw_images, load_networks
from mmlckd.config import read_config
from mmlckd.losses import LipschitzKDLoss

GUIDED = 'configs/demo/mnist5k_wrn16-2_to_wrn10-1.py'
TEACHER = 'configs/demo/mnist5k_wrn16-2.py'


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
    networks = load_networks(config, student, teacher=teacher)
    assert list(networks) == ['student', 'teacher']
    assert networks['teacher'].checkpoint == str(teacher) and networks['teacher'].taps == config.model.taps
    saved = torch.load(teacher)['state_dict']['backbone.conv1.weight']
    assert torch.equal(networks['teacher'].model.backbone.conv1.weight, saved)
    assert networks['teacher'].model.backbone.bn.track_running_stats  # the analysis is of evaluation mode


def test_networks_that_are_not_there_are_named_before_any_analysis(weights):
    init_default_scope('mmpretrain')
    with pytest.raises(FileNotFoundError, match="checkpoint 'nowhere.pth' does not exist"):
        load_networks(read_config(GUIDED), weights[0], others=dict(KD='nowhere.pth'))
    with pytest.raises(ValueError, match="the name 'teacher', which another network of the report has"):
        load_networks(read_config(GUIDED), weights[0], others=dict(teacher=weights[0]))
    with pytest.raises(ValueError, match='has no teacher: give a config that distils'):
        load_networks(read_config(TEACHER), weights[1], teacher=weights[1])


def test_norms_are_centred_as_in_the_loss():
    for recipe, center in ((GUIDED, True), ('configs/lckd/cifar100_wrn28-4_to_wrn16-2.py', False)):
        student, teacher, found = compared_maps(read_config(recipe))
        assert found is center and len(student) == len(teacher) == 3


def test_losses_given_as_classes_or_switched_off():
    config = read_config(GUIDED)
    config.model.losses = dict(kd=None, lipschitz=dict(type=LipschitzKDLoss, distance='absolute'))
    assert compared_maps(config).center is False
    config.model.losses = dict(kd=None)
    assert compared_maps(config).center is True  # the default


def test_images_are_drawn_from_all_over_the_data_set():
    dataset = [dict(inputs=index) for index in range(1000)]  # as in class folders: ten classes, one after another
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=16, collate_fn=lambda items: [item['inputs'] for item in items]
    )
    indices, batches = draw_images(loader, 64, 0)
    assert sum(batches, []) == indices == sorted(set(indices)) and [len(batch) for batch in batches] == [16] * 4
    assert len({index // 100 for index in indices}) == 10  # the chance to miss one is 10 * 0.9 ** 64, one in a hundred
    assert draw_images(loader, 64, 0)[0] == indices != draw_images(loader, 64, 1)[0]
    assert len(draw_images(loader, 2000, 0)[0]) == 1000
