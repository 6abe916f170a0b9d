"""Every field that a resume reads, with values that no training writes: refused by name, or without effect."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.hooks import EMAHook
from short_run import SAFE, names, training

from mmlckd.checkpoints import read_checkpoint
from mmlckd.resumability import GradientStateHook, RandomStateHook, RunCheckHook
from mmlckd.resumability.resumed_fields import FIELDS, field_fault

SCHEDULE = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
    dict(type='MultiStepLR', milestones=[1, 2], by_epoch=True),
]
GROUPS = dict(optimizer=dict(type='Adam', lr=0.1), paramwise_cfg=dict(bias_lr_mult=2.0), accumulative_counts=3)


def make(folder, resume=False, schedule=SCHEDULE, **options):
    hooks = [RunCheckHook(), RandomStateHook(), GradientStateHook(), EMAHook()]
    safe = dict(SAFE, max_keep_ckpts=2, save_best='accuracy', rule='greater')
    options = dict(dict(optim_wrapper=copy.deepcopy(GROUPS), max_epochs=3), **options)
    schedule = copy.deepcopy(schedule)
    return training(folder, hooks, safe, resume=resume, validate=True, param_scheduler=schedule, **options)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp('written')
    make(folder, max_epochs=2).train()
    return folder / 'epoch_2.pth'


def test_a_checkpoint_of_a_training_has_these_fields_and_is_resumed_from(written, tmp_path):
    content = read_checkpoint(written.with_name('epoch_1.pth'))
    # 4 iterations are no multiple of 3, so gradients wait
    parts = {'ema_state_dict', 'param_schedulers', 'random_states', 'accumulated_gradients', 'optimizer', 'state_dict'}
    assert set(content) == parts | {'meta', 'message_hub'}
    known = {path.rpartition('.')[2].rstrip('*') for path in FIELDS}
    info = set(read_checkpoint(written)['message_hub']['runtime_info'])
    assert {'keep_ckpt_ids', 'last_ckpt', 'best_ckpt', 'best_score', 'evaluated', 'outdated'} <= known & info
    make(tmp_path, written).train()
    assert 'epoch_3.pth' in names(tmp_path)


def states(**changes):
    def change(content):
        content['random_states'] = [dict(content['random_states'][0], **changes)]

    return change


def numpys(place=3, value=None, has_gauss=0):
    numbers = np.zeros(624, np.uint32) if value is None else value
    return ('MT19937', numbers, place, has_gauss, 0.0)


def change(path, value):
    def change(content):
        *tables, last = path.split('.')
        for name in tables:
            content = content[int(name) if isinstance(content, (list, tuple)) else name]
        content[int(last) if isinstance(content, list) else last] = value

    return change


INFO = 'message_hub.runtime_info'
HOSTILE = {
    'meta': change('meta', 'config'),
    'meta.epoch': change('meta.epoch', -1),
    'meta.epoch ': change('meta.epoch', 'x'),
    'meta.epoch  ': lambda content: content['meta'].pop('epoch'),
    'meta.iter': change('meta.iter', 0.5),
    'meta.iter ': change('meta.iter', True),
    'meta.seed': change('meta.seed', 2**40),
    'message_hub': change('message_hub', []),
    'message_hub.log_scalars': change('message_hub.log_scalars', 3),
    'message_hub.log_scalars.loss': change('message_hub.log_scalars.loss', [0.5]),
    'message_hub.runtime_info': change(INFO, {1: 2}),
    'message_hub.resumed_keys.x': change('message_hub.resumed_keys.x', 'yes'),
    f'{INFO}.keep_ckpt_ids': change(f'{INFO}.keep_ckpt_ids', ['../../victim', 1, 2]),
    f'{INFO}.keep_ckpt_ids ': change(f'{INFO}.keep_ckpt_ids', 3),
    f'{INFO}.last_ckpt': change(f'{INFO}.last_ckpt', 3),
    f'{INFO}.best_ckpt': change(f'{INFO}.best_ckpt', ['x']),
    f'{INFO}.best_ckpt ': change(f'{INFO}.best_ckpt', 'x\0y'),
    f'{INFO}.best_ckpt_x': change(f'{INFO}.best_ckpt_x', 1),
    f'{INFO}.best_score': change(f'{INFO}.best_score', 'high'),
    f'{INFO}.outdated': change(f'{INFO}.outdated', 'epoch_1.pth'),
    f'{INFO}.outdated ': change(f'{INFO}.outdated', [1]),
    f'{INFO}.unsound': change(f'{INFO}.unsound', {}),
    f'{INFO}.evaluated': change(f'{INFO}.evaluated', '2'),
    f'{INFO}.lipschitz_history': change(f'{INFO}.lipschitz_history', [dict(iter=1, student='x')]),
    f'{INFO}.lipschitz_history ': change(f'{INFO}.lipschitz_history', [dict(student=[1.0])]),
    f'{INFO}.lipschitz_history  ': change(f'{INFO}.lipschitz_history', [dict(iter=1, student=3)]),
    f'{INFO}.lipschitz_history   ': change(f'{INFO}.lipschitz_history', [dict(iter=1, student=[[1.0]])]),
    f'{INFO}.lipschitz_history    ': change(f'{INFO}.lipschitz_history', [dict(iter=1, layers=[1.0])]),
    f'{INFO}.lipschitz_history     ': change(f'{INFO}.lipschitz_history', [dict(iter=1, layers=dict(conv='x'))]),
    f'{INFO}.lipschitz_layer_sizes': change(f'{INFO}.lipschitz_layer_sizes', dict(conv=(-1,))),
    'ema_state_dict': change('ema_state_dict', dict(steps=1)),
    'ema_state_dict)': change('ema_state_dict', {'module.other': torch.zeros(1)}),
    'ema_state_dict) ': change('ema_state_dict', {'module.fc.bias': torch.zeros(7)}),
    'random_states': states(numpy=numpys(place=10**6)),  # numpy would read there
    'random_states ': states(numpy=numpys(value=np.zeros(3, np.uint32))),
    'random_states  ': states(numpy=numpys(value=np.zeros(624, np.float64))),
    'random_states   ': states(python=(3, (1,) * 625, None)[:2]),
    'random_states    ': states(python=(3, (2**40,) * 625, None)),
    'random_states     ': states(torch=torch.zeros(5056, dtype=torch.uint8)),
    'random_states      ': states(torch=torch.zeros(10)),
    'random_states       ': change('random_states', []),
    'epoch_random_states': change('epoch_random_states', [1]),
    'place_in_epoch': change('place_in_epoch', (5, 4)),
    'place_in_epoch ': change('place_in_epoch', 'ab'),
    'accumulated_gradients': change('accumulated_gradients', [dict(fc=1)]),
    'accumulated gradient': change('accumulated_gradients', [dict(fc=torch.zeros(1))]),
    'accumulated gradient ': change('accumulated_gradients', [{'fc.bias': torch.zeros(1)}]),
    'optimizer': change('optimizer', 3),
    'state is not': change('optimizer.state', []),
    'not what an optimizer': change('optimizer.param_groups', {}),
    'parameter groups': lambda content: content['optimizer']['param_groups'].pop(),
    'lacks betas': lambda content: content['optimizer']['param_groups'][0].pop('betas'),
    'has lr=': change('optimizer.param_groups.0.lr', 'fast'),
    'has lr=nan': change('optimizer.param_groups.1.lr', float('nan')),
    'has lr=None': change('optimizer.param_groups.1.lr', None),
    'has betas=': change('optimizer.param_groups.0.betas', ('a', 'b')),
    'has fused=': change('optimizer.param_groups.0.fused', 'yes'),
    'has extra=': change('optimizer.param_groups.0.extra', 'text'),
    'belongs to no parameter': lambda content: content['optimizer']['state'].update({99: {}}),
    'belongs to no parameter ': lambda content: content['optimizer']['state'].update({0: 1}),
    'has a exp_avg of shape': lambda content: content['optimizer']['state'][0].update(exp_avg=torch.zeros(2)),
    'loss_scaler': change('optimizer.loss_scaler', dict(scale=1.0)),
    'base_param_settings': change('optimizer.base_param_settings', 1),
    'base_param_settings.lr': change('optimizer.base_param_settings.lr', 'x'),
    'param_schedulers': change('param_schedulers', dict(a=[])),
    'param_schedulers ': change('param_schedulers', [1]),
    'step=5': change('param_schedulers.0.step', 5),  # in the place of a method
    'milestones': change('param_schedulers.1.milestones', 'ab'),
    'last_step': change('param_schedulers.0.last_step', 'x'),
    'state_dict': change('state_dict', [1]),
    'no meta': lambda content: content.pop('meta'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_a_hostile_value_is_refused_by_its_name(name, written, tmp_path):
    content = read_checkpoint(written)
    HOSTILE[name](content)
    torch.save(content, tmp_path / 'hostile.pth')
    victim = tmp_path / 'victim.pth'
    victim.write_text('of the user')
    run = make(tmp_path / 'deep' / 'run', tmp_path / 'hostile.pth')
    with pytest.raises(ValueError) as refused:
        run.train()
    sentence = str(refused.value).replace('weights by name', 'state_dict')
    assert name.strip() in sentence and 'hostile.pth' in sentence or 'accumulated gradient of' in sentence
    assert victim.is_file()


@pytest.mark.parametrize('score', [torch.tensor(0.5), np.float64(0.5), np.array(0.5), 0.5])
def test_a_score_may_be_a_tensor(score):
    hub = dict(log_scalars={}, resumed_keys={}, runtime_info=dict(best_score=score))
    content = dict(meta=dict(epoch=0, iter=1), message_hub=hub)
    assert field_fault(content) is None


@pytest.mark.parametrize('key', ['outdated', 'unsound', 'last_ckpt', 'best_ckpt', 'best_ckpt_x'])
@pytest.mark.parametrize('where', ['../victim.pth', '{folder}/victim.pth', 'notes.txt', '../epoch_7.pth', '..', ''])
def test_names_in_it_reach_no_file_but_checkpoints_in_the_runs_own_folder(key, where, written, tmp_path):
    content = read_checkpoint(written)
    name = where.format(folder=tmp_path)
    content['message_hub']['runtime_info'][key] = [name] if key in ('outdated', 'unsound') else name
    content['message_hub']['resumed_keys'][key] = True
    torch.save(content, tmp_path / 'hostile.pth')
    folder = tmp_path / 'run'
    folder.mkdir()
    victims = [tmp_path / 'victim.pth', tmp_path / 'epoch_7.pth', folder / 'notes.txt', folder / 'victim.pth']
    for victim in victims:
        victim.write_text('of the user')
    make(folder, tmp_path / 'hostile.pth').train()
    assert all(victim.is_file() for victim in victims)


def test_all_schedulers_of_mmengine_resume_from_what_they_save(tmp_path):
    schedule = [
        dict(type='CosineAnnealingLR', T_max=4, by_epoch=True),
        dict(type='PolyLR', eta_min=0.01, power=0.9, begin=0, end=9, by_epoch=False),
        dict(type='ReduceOnPlateauLR', monitor='accuracy', rule='greater', patience=1),
        dict(type='OneCycleLR', eta_max=0.2, total_steps=12, by_epoch=False),
        dict(type='ExponentialLR', gamma=0.9, by_epoch=True),
        dict(type='StepLR', step_size=1, by_epoch=True),
        dict(type='ConstantLR', factor=0.5, end=2, by_epoch=True),
        dict(type='CosineRestartLR', periods=[4, 8], restart_weights=[1, 0.5], eta_min=0, by_epoch=False),
        dict(type='LinearMomentum', start_factor=0.5, end=2, by_epoch=True),
    ]
    make(tmp_path, max_epochs=2, schedule=schedule).train()
    make(tmp_path, tmp_path / 'epoch_2.pth', schedule=schedule).train()
    assert 'epoch_3.pth' in names(tmp_path)


@pytest.mark.parametrize(
    'optimizer', ['SGD', 'AdamW', 'NAdam', 'Adagrad', 'RMSprop', 'Rprop', 'Adamax', 'ASGD', 'Adadelta']
)
def test_optimizers_of_torch_resume_with_several_groups(optimizer, tmp_path):
    wrapper = dict(optimizer=dict(type=optimizer, lr=0.01), paramwise_cfg=dict(bias_lr_mult=2.0))
    make(tmp_path, max_epochs=1, optim_wrapper=copy.deepcopy(wrapper)).train()
    make(tmp_path, tmp_path / 'epoch_1.pth', max_epochs=2, optim_wrapper=copy.deepcopy(wrapper)).train()
    assert 'epoch_2.pth' in names(tmp_path)


def test_the_security_page_lists_every_field():
    page = (ROOT / 'SECURITY.md').read_text()
    missing = [path for path in FIELDS if path.rpartition('.')[2] not in page]
    assert not missing
