"""Names in checkpoints are a format: files that an earlier version wrote load and resume.

The keys stand here letter by letter, as version 158222d wrote them.
"""

from __future__ import annotations

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from short_run import Images, collate
from torch import nn
from torch.utils.data import DataLoader

from mmlckd.distillers import LipschitzDistiller
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


class Names(BaseModel):
    """Modules whose paths are told apart by nothing but dots: a.b_c and a_b.c, and a.b.c beside them."""

    def __init__(self, width=2):
        super().__init__()
        self.a, self.a_b = nn.Module(), nn.Module()
        self.a.b_c, self.a_b.c = nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 1)
        self.a.b = nn.Module()
        self.a.b.c = nn.Conv2d(width, width, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.a.b.c(self.a_b.c(self.a.b_c(inputs)))
        return dict(loss=x.square().mean()) if mode == 'loss' else x


AT = dict(type='mmlckd.AttentionTransferLoss', connectors=True)


def distil(taps, teacher):
    """A student with a loss for each entry of ``taps``."""
    losses = {name: dict(AT, taps=each) for name, each in taps.items()}
    return LipschitzDistiller(student=Names(), teacher=dict(model=teacher), losses=losses).eval()


def names_of(model):
    return list(model.distiller.connectors)


def test_connectors_whose_names_meet_are_told_apart():
    teacher = Names(3)
    taps = dict(first=['a.b_c'], second=['a_b.c'], third=['a.b.c'], again=['a.b_c'])
    model = distil(taps, teacher)
    assert names_of(model) == ['a/b_c--a/b_c', 'a_b/c--a_b/c', 'a/b/c--a/b/c']
    twin = distil(dict(reversed(taps.items())), teacher)  # their names do not depend on the order of the losses
    twin.load_state_dict(model.state_dict())
    inputs = torch.randn(2, 3, 4, 4)
    values, others = (each(inputs, mode='loss') for each in (model, twin))
    assert all(torch.equal(value, others[name]) for name, value in values.items())
    assert torch.equal(values['distiller.loss_first'], values['distiller.loss_again'])


def test_names_that_do_not_meet_stay_as_they_were():
    assert names_of(distil(dict(first=['a.b_c']), Names(3))) == ['a_b_c--a_b_c']
    taps = dict(student=['a.b_c', 'a_b.c'], teacher=['a.b_c', 'a.b.c'])
    assert names_of(distil(dict(first=taps), Names(3))) == ['a/b_c--a/b_c', 'a_b/c--a/b/c']  # these do meet
    teachers = {name: dict(model=Names(3)) for name in ('one', 'two')}
    losses = {name: dict(AT, teacher=name) for name in teachers}
    taps = dict(student=['a.b_c'], teacher=['a_b.c'])
    model = LipschitzDistiller(student=Names(), losses=losses, taps=taps, teachers=teachers)
    assert names_of(model) == ['one--a_b_c--a_b_c', 'two--a_b_c--a_b_c']


class Tokens(BaseModel):
    """Sixteen tokens of two channels."""

    def __init__(self):
        super().__init__()
        self.embed, self.last = nn.Linear(3, 2), nn.Linear(2, 2)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.last(self.embed(inputs.flatten(2).mT))
        return dict(loss=x.square().mean()) if mode == 'loss' else x


def test_grids_of_one_module_share_a_connector_and_no_map():
    grids = dict(square=(4, 4), flat=(2, 8))
    losses = {name: dict(AT, taps=[dict(module='embed', grid=grid)]) for name, grid in grids.items()}
    fields = dict(student=Tokens(), teacher=dict(model=Tokens()), input_shape=(3, 4, 4))
    model = LipschitzDistiller(losses=losses, **fields).eval()
    assert names_of(model) == ['embed--embed']
    seen = {}
    for name, entry in zip(grids, model.distiller.entries):
        entry.compare = lambda maps, targets, name=name: seen.update({name: maps[0].shape[2:]}) or maps[0].sum()
    model(torch.randn(2, 3, 4, 4), mode='loss')
    assert seen == grids


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
