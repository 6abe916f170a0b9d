"""Names in checkpoints are a format: files that an earlier version wrote load and resume.

The keys stand here letter by letter, as version 158222d wrote them.
"""

from __future__ import annotations

import pytest
import torch
from mmengine.runner import Runner
from short_run import Images, collate
from torch.utils.data import DataLoader

from mmlckd.registry import MODELS
from mmlckd.taps import Tap

PARTS = ('0.weight', '1.weight', '1.bias', '1.running_mean', '1.running_var', '1.num_batches_tracked')
CASES = {
    'module paths': (
        dict(
            student=['backbone.layer2.0.bn1', 'backbone.layer4'], teacher=['backbone.layer2.1.bn1', 'backbone.layer4']
        ),
        ['backbone_layer2_0_bn1--backbone_layer2_1_bn1', 'backbone_layer4--backbone_layer4'],
    ),
    'the preset': (
        'resnet_preact',
        [
            'backbone_layer1_1_relu (io=input)--backbone_layer1_2_relu (io=input)',
            'backbone_layer2_1_relu (io=input)--backbone_layer2_3_relu (io=input)',
            'backbone_layer3_1_relu (io=input)--backbone_layer3_5_relu (io=input)',
            'backbone_layer4_1_relu (io=input)--backbone_layer4_2_relu (io=input)',
        ],
    ),
    'calls and elements': (
        [
            dict(module='backbone.layer3.0.relu', call=0),
            dict(module='backbone.layer3.1.relu', io='input', call=1),
            dict(module='backbone', index=0),
        ],
        [
            'backbone_layer3_0_relu (call=0)--backbone_layer3_0_relu (call=0)',
            'backbone_layer3_1_relu (io=input, call=1)--backbone_layer3_1_relu (io=input, call=1)',
            'backbone (index=0)--backbone (index=0)',
        ],
    ),
}


def build(family, taps):
    losses = dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True, taps=taps))
    return MODELS.build(
        dict(
            type='mmlckd.LipschitzDistiller',
            student=family.student,
            teacher=dict(model=family.teacher),
            losses=losses,
        )
    )


@pytest.mark.parametrize('taps, connectors', CASES.values(), ids=CASES)
def test_keys_are_those_of_the_version_before(classification, taps, connectors):
    model = build(classification, taps)
    keys = [key for key in model.state_dict() if key.startswith('distiller.')]
    assert keys == [f'distiller.connectors.{name}.{part}' for name in connectors for part in PARTS]


def test_a_grid_is_no_part_of_a_key():
    assert Tap('backbone.layers.3', grid=(7, 7)).key == 'backbone.layers.3'
    assert Tap('neck', io='input', call=2, index=1).key == 'neck (io=input, call=2, index=1)'


def run(family, folder, taps, iters, **kwargs):
    torch.manual_seed(0)
    return Runner(
        build(family, taps),
        str(folder),
        DataLoader(Images(family), batch_size=2, collate_fn=collate),
        train_cfg=dict(by_epoch=False, max_iters=iters),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        default_hooks=dict(logger=None, checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        default_scope='mmpretrain',
        experiment_name=folder.name,
        **kwargs,
    )


def test_a_checkpoint_of_the_version_before_resumes(classification, tmp_path):
    taps, connectors = CASES['the preset']
    model = build(classification, taps)
    own = [key for key in model.state_dict() if not key.startswith('distiller.')]
    parameters = [name for name, _ in model.named_parameters() if not name.startswith('distiller.')]
    expected = dict(zip(model.state_dict(), (torch.rand_like(v.float()) for v in model.state_dict().values())))
    names = [*own, *(f'distiller.connectors.{name}.{part}' for name in connectors for part in PARTS)]
    trained = [*parameters, *(f'distiller.connectors.{name}.{part}' for name in connectors for part in PARTS[:3])]
    state = {name: expected[name].to(model.state_dict()[name].dtype) for name in names}
    momenta = {i: dict(momentum_buffer=torch.full_like(state[name], i)) for i, name in enumerate(trained)}
    group = dict(lr=0.01, momentum=0.9, dampening=0, weight_decay=0, nesterov=False, params=list(range(len(trained))))
    content = dict(
        state_dict=state,
        optimizer=dict(state=momenta, param_groups=[group]),
        meta=dict(epoch=0, iter=3, experiment_name='before', seed=0),
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
    )
    torch.save(content, tmp_path / 'iter_3.pth')
    runner = run(classification, tmp_path, taps, 3, load_from=str(tmp_path / 'iter_3.pth'), resume=True)
    runner.train()  # all three iterations are done: what was loaded is what is there
    assert runner.iter == 3
    assert all(torch.equal(value, state[key]) for key, value in runner.model.state_dict().items())
    loaded = runner.optim_wrapper.state_dict()['state']
    assert len(loaded) == len(trained)
    for index, name in enumerate(trained):
        assert (loaded[index]['momentum_buffer'] == index).all(), name
