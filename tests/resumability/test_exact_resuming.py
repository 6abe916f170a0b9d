"""Runs that SIGTERM ends and that are resumed have the weights of those that were never interrupted, to the bit."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import os
import random
import signal

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from short_run import SAFE, Accuracy, training
from small_network import Model, samples
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from mmlckd.distillers import LipschitzDistiller
from mmlckd.resumability import GradientStateHook, PreemptionHook, RandomStateHook, RunCheckHook


class Augmented(Dataset):
    """Samples that are augmented by every generator there is."""

    def __init__(self, count=8):
        self.samples = samples(count)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(1).item()
        return dict(self.samples[index], inputs=self.samples[index]['inputs'] + noise)


class Terminated(Hook):
    """SIGTERM comes in that iteration."""

    priority = 'VERY_HIGH'

    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)


class Draws(Hook):
    """An evaluation draws random numbers."""

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        random.random(), np.random.rand(), torch.rand(1)


class Order(Hook):
    """What was trained on, in its order."""

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append(data_batch['inputs'].sum((1, 2, 3)).tolist())


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecay(DefaultOptimWrapperConstructor):
    """A group for each tensor, deeper ones with larger rates."""

    def add_params(self, params, module, **kwargs):
        for depth, parameter in enumerate(module.parameters()):
            params.append(dict(params=[parameter], lr=self.base_lr * 0.9 ** (6 - depth), lr_scale=0.9**depth))


def weights(run):
    state = run.model.state_dict()
    optimizer = run.optim_wrapper.state_dict()
    values = [value for each in optimizer['state'].values() for value in each.values()]
    # torch 2.1 keeps a None in the place of momentum that an optimizer has not
    return [*state.values(), *(value for value in values if isinstance(value, torch.Tensor))], optimizer


def train(folder, sampler, terminated=None, resume=False, sets=Augmented, model=Model, more_hooks=(), **options):
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    dataset, options['model'] = sets(), model()
    hooks = [RunCheckHook(), RandomStateHook(), GradientStateHook(), PreemptionHook(), Draws(), *more_hooks]
    options = dict(dict(checkpoint=dict(SAFE, interval=100), validate=True), **options)
    loading = dict(batch_size=2, sampler=sampler(dataset), num_workers=options.pop('workers', 0))
    run = training(
        folder,
        [*hooks, *([Terminated(terminated)] if terminated is not None else [])],
        resume=resume,
        data=DataLoader(dataset, **loading),
        **options,
    )
    before = signal.getsignal(signal.SIGTERM)
    try:
        run.train()
    except SystemExit as ended:
        assert ended.code == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    return run


def assert_exact(tmp_path, sampler, terminated, **options):
    whole = train(tmp_path / 'whole', sampler, **options)
    train(tmp_path / 'cut', sampler, terminated, **options)
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    resumed = train(tmp_path / 'cut', sampler, resume=True, **options)
    assert resumed.iter == whole.iter
    for one, other in zip(weights(whole)[0], weights(resumed)[0]):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    for one, other in zip(*(weights(run)[1]['param_groups'] for run in (whole, resumed))):
        assert one == other


SAMPLERS = dict(
    infinite=lambda dataset: InfiniteSampler(dataset, seed=0),
    default=lambda dataset: DefaultSampler(dataset, seed=0),
    torch=RandomSampler,
)
ITERATIONS = dict(type='mmlckd.ResumableIterLoop', max_iters=7)


@pytest.mark.parametrize(
    'sampler, terminated',
    # The fourth batch is the last of the data. Then torch's sampler takes a new order from the random state of that
    # moment.
    [*((name, at) for name in ('infinite', 'default') for at in (0, 2, 3, 4)), ('torch', 0), ('torch', 2)],
)
def test_iteration_loops_with_augmentation_in_the_main_process(sampler, terminated, tmp_path, monkeypatch):
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # MMEngine waits two seconds where the data begin again
    assert_exact(tmp_path, SAMPLERS[sampler], terminated, **ITERATIONS, val_interval=3)


def test_iteration_loops_around_evaluations_and_checkpoints(tmp_path):
    options = dict(**ITERATIONS, val_interval=2, checkpoint=dict(SAFE, by_epoch=False, interval=3))
    assert_exact(tmp_path, SAMPLERS['infinite'], 4, **options)


@pytest.mark.parametrize('loop', [dict(type='mmlckd.ResumableEpochLoop', max_epochs=2), ITERATIONS])
@pytest.mark.parametrize('own', [None, 3])
def test_runs_without_a_seed_go_on_in_their_own_order(loop, own, tmp_path, monkeypatch):
    """MMEngine draws a seed, builds the loaders with it, and only then takes the checkpoint's."""
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    kind = InfiniteSampler if 'max_iters' in loop else DefaultSampler
    drawn = iter([1, 1, 2])  # by the whole run, the cut one and the resumed one
    monkeypatch.setattr('mmengine.runner.utils.sync_random_seed', lambda: next(drawn))
    loading = dict(dataset=samples(), batch_size=2, num_workers=0, collate_fn=dict(type='default_collate'))
    loading['sampler'] = dict(type=kind, **({} if own is None else dict(seed=own)))

    def run(folder, resume=False, terminated=None):
        hooks = [RandomStateHook(), Order(), PreemptionHook(), *([Terminated(5)] if terminated else [])]
        options = dict(data=copy.deepcopy(loading), randomness=dict(seed=None), **loop)
        made = training(folder, hooks, dict(SAFE, interval=100), resume=resume, **options)
        before = signal.getsignal(signal.SIGTERM)
        with contextlib.suppress(SystemExit):
            made.train()
        signal.signal(signal.SIGTERM, before)
        return hooks[1].seen

    whole, cut = run(tmp_path / 'whole'), run(tmp_path / 'cut', terminated=True)
    rest = run(tmp_path / 'cut', resume=tmp_path / 'cut' / 'preempted.pth')
    assert len(rest) < len(whole) and cut + rest == whole


@pytest.mark.parametrize('terminated', [0, 5])
@pytest.mark.parametrize('sampler', ['default', 'torch'])
def test_epoch_loops(sampler, terminated, tmp_path):
    assert_exact(tmp_path, SAMPLERS[sampler], terminated, type='mmlckd.ResumableEpochLoop', max_epochs=2)


class Images(Augmented):
    """The same samples under the names that a student of a distillation takes."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return dict(inputs=sample['inputs'], data_samples=sample['labels'])


class Classifier(BaseModel):
    """Convolution, batch norm, dropout and linear layer."""

    def __init__(self, width=4):
        super().__init__()
        self.conv, self.bn, self.drop, self.fc = (
            nn.Conv2d(2, width, 3, stride=2),
            nn.BatchNorm2d(width),
            nn.Dropout(0.2),
            nn.Linear(width, 3),
        )

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = self.fc(self.drop(self.bn(self.conv(inputs)).relu()).mean((2, 3)))
        return dict(loss=nn.functional.cross_entropy(logits, data_samples)) if mode == 'loss' else logits


def of_two_views():
    """A student that is compared with its teacher in one view, in the other, and in the change between them."""
    return LipschitzDistiller(
        student=Classifier(),
        teacher=dict(model=Classifier(6)),
        taps=['bn'],
        losses=dict(
            local=dict(type='mmlckd.LocalLipschitzKDLoss', taps=['fc'], max_share=0.5),
            kd=dict(type='mmlckd.LogitsKDLoss', taps=['fc'], activation='softmax', views='both'),
            attention=dict(type='mmlckd.AttentionTransferLoss', connectors=True, views='second'),
        ),
        view=dict(type='mmlckd.MixedView'),
        input_shape=(2, 8, 6),
    )


def options_of_two_views():
    hooks = [
        dict(type='mmlckd.SpectralNormHook', interval=2),
        dict(type='mmlckd.LossWeightHook', loss='local', milestones=[6], weights=[3.0], by_epoch=False, ramp=True),
        dict(type='mmlckd.ConnectorWarmupHook', iters=3),
        dict(type='EMAHook', momentum=0.1),
    ]
    return dict(model=of_two_views, sets=Images, more_hooks=hooks, validate=False)


@pytest.mark.parametrize('terminated', [0, 3, 5])
@pytest.mark.parametrize('loop', ['epochs', 'iterations'])
def test_trainings_with_a_second_view(loop, terminated, tmp_path, monkeypatch):
    """SIGTERM within and at the end of the first epoch, and within the second."""
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    length = dict(type='mmlckd.ResumableEpochLoop', max_epochs=3) if loop == 'epochs' else ITERATIONS
    sampler = SAMPLERS['default' if loop == 'epochs' else 'infinite']
    assert_exact(tmp_path, sampler, terminated, **length, **options_of_two_views())


@pytest.mark.parametrize('name', ['epoch_1.pth', 'iter_4.pth'])
def test_trainings_with_a_second_view_that_are_killed(name, tmp_path, monkeypatch):
    """A kill leaves no time to save: training goes on from the last checkpoint."""
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    by_epoch = name.startswith('epoch')
    length = dict(type='mmlckd.ResumableEpochLoop', max_epochs=3) if by_epoch else ITERATIONS
    options = dict(**length, checkpoint=dict(SAFE, by_epoch=by_epoch, interval=1 if by_epoch else 4))
    sampler = SAMPLERS['default' if by_epoch else 'infinite']
    whole = train(tmp_path / 'whole', sampler, **options, **options_of_two_views())
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    resumed = train(tmp_path / 'cut', sampler, resume=tmp_path / 'whole' / name, **options, **options_of_two_views())
    assert resumed.iter == whole.iter
    assert all(torch.equal(one, other) for one, other in zip(weights(whole)[0], weights(resumed)[0]))
    histories = [(tmp_path / folder / 'lipschitz.json').read_text() for folder in ('whole', 'cut')]
    assert histories[0] == histories[1]


PARAMWISE = dict(custom_keys={'conv': dict(lr_mult=0.1), 'fc': dict(decay_mult=0.0)}, norm_decay_mult=0.0)


@pytest.mark.parametrize(
    'wrapper',
    [
        dict(paramwise_cfg=PARAMWISE),
        dict(paramwise_cfg=dict(bias_lr_mult=2.0), clip_grad=dict(max_norm=1.0)),
        dict(constructor='LayerDecay'),
        dict(constructor='LayerDecay', accumulative_counts=2),
    ],
)
def test_optimizers_with_several_parameter_groups(wrapper, tmp_path):
    wrapper = dict(optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.05), **wrapper)
    schedule = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5), dict(type='ExponentialLR', gamma=0.5)]

    def copies():
        return dict(optim_wrapper={**wrapper, 'optimizer': dict(wrapper['optimizer'])}, param_scheduler=schedule)

    assert_exact(tmp_path, SAMPLERS['default'], 5, type='mmlckd.ResumableEpochLoop', max_epochs=3, **copies())


@pytest.mark.parametrize('accumulate', [3, 5])
@pytest.mark.parametrize(
    'options',
    [
        dict(type='mmlckd.ResumableEpochLoop', max_epochs=3, checkpoint=dict(SAFE, interval=1)),
        dict(type='mmlckd.ResumableIterLoop', max_iters=12, checkpoint=dict(SAFE, by_epoch=False, interval=4)),
    ],
)
def test_accumulated_gradients_are_in_checkpoints(options, accumulate, tmp_path):
    """Epochs of 4 batches, steps of 3 or 5: a resume from a checkpoint falls between two steps."""
    options = dict(options, accumulate=accumulate)
    sampler = SAMPLERS['default' if 'max_epochs' in options else 'infinite']
    name = 'epoch_1.pth' if 'max_epochs' in options else 'iter_4.pth'
    whole = train(tmp_path / 'whole', sampler, **options)
    resumed = train(tmp_path / 'cut', sampler, resume=tmp_path / 'whole' / name, **options)
    assert all(torch.equal(one, other) for one, other in zip(weights(whole)[0], weights(resumed)[0]))


@pytest.mark.parametrize('moment', ['save_begin', 'an evaluation in between', 'a best checkpoint'])
def test_accumulated_gradients_are_in_checkpoints_off_the_schedule(moment, tmp_path, monkeypatch):
    from mmlckd.checkpoints import read_checkpoint

    better = itertools.count()
    monkeypatch.setattr(Accuracy, 'compute_metrics', lambda self, results: dict(accuracy=next(better)))
    options = dict(type='mmlckd.ResumableIterLoop', max_iters=12, accumulate=5)
    saving, name = dict(SAFE, by_epoch=False, interval=4, save_begin=2), 'iter_6.pth'
    if moment == 'an evaluation in between':
        options.update(val_interval=3, terminated=2)  # in the third iteration, whose step is not whole
        saving, name = dict(SAFE, by_epoch=False, interval=100), 'preempted.pth'
    elif moment == 'a best checkpoint':
        options.update(val_interval=3)
        saving, name = dict(SAFE, by_epoch=False, interval=4, save_best='accuracy', rule='greater'), 'iter_9.pth'
    train(tmp_path, SAMPLERS['infinite'], checkpoint=saving, **options)
    content = read_checkpoint(tmp_path / name)
    assert content['meta']['iter'] in (3, 6, 9) and 'accumulated_gradients' in content


def test_no_gradients_are_kept_where_the_optimizer_has_stepped(tmp_path):
    from mmlckd.checkpoints import read_checkpoint

    options = dict(type='mmlckd.ResumableEpochLoop', max_epochs=2, checkpoint=dict(SAFE, interval=1), accumulate=2)
    train(tmp_path, SAMPLERS['default'], **options)
    assert 'accumulated_gradients' not in read_checkpoint(tmp_path / 'epoch_1.pth')


@pytest.fixture
def heard(monkeypatch):
    """What is logged as a warning."""
    found = []
    monkeypatch.setattr(
        logging.Logger,
        'handle',
        lambda self, record: found.append(record.getMessage()) if record.levelno >= 30 else None,
    )
    return found


class Last(Hook):
    """How often an iteration is the last one, which is when final readings are taken."""

    def __init__(self):
        self.count = 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.count += self.is_last_train_iter(runner)


@pytest.mark.parametrize('terminated, begun', [(5, 2), (3, 2), (1, 1), (None, 2)])
def test_an_epoch_of_another_length_begins_anew_with_a_warning_and_ends_as_it_should(
    terminated, begun, tmp_path, heard
):
    """Half as many batches, as with twice the processes; after SIGTERM in or at the end of an epoch, and after an
    epoch's checkpoint.
    """
    options = dict(type='mmlckd.ResumableEpochLoop', max_epochs=3)
    every = dict(SAFE, interval=1 if terminated is None else 100)
    train(tmp_path, SAMPLERS['default'], terminated, **options, checkpoint=every)
    torch.manual_seed(0)
    dataset, last = Augmented(), Last()
    data = DataLoader(dataset, batch_size=4, sampler=SAMPLERS['default'](dataset))
    resume = tmp_path / 'epoch_1.pth' if terminated is None else True
    run = training(tmp_path, [RandomStateHook(), last], dict(SAFE, interval=100), resume=resume, data=data, **options)
    run.train()
    assert run.iter == 6 and run.epoch == 3 and last.count == 1
    (sentence,) = [text for text in heard if 'when the checkpoint was written' in text]
    assert f'at the beginning of epoch {begun}, iterations are counted on from {2 * begun - 2}, not ' in sentence


def test_another_number_of_processes_is_said(tmp_path, heard, monkeypatch):
    train(tmp_path, SAMPLERS['default'], 5, type='mmlckd.ResumableEpochLoop', max_epochs=2)
    monkeypatch.setattr('mmlckd.resumability.random_state_hook.get_world_size', lambda: 2)
    train(tmp_path, SAMPLERS['default'], resume=True, type='mmlckd.ResumableEpochLoop', max_epochs=2)
    assert any(
        'was written by 1 processes, and 2 run now: training goes on with other random' in text for text in heard
    )


def test_workers_in_iteration_loops_are_said_to_augment_otherwise(tmp_path, heard):
    options = dict(**ITERATIONS, workers=1)
    train(tmp_path, SAMPLERS['infinite'], 2, **options)
    assert not any('augmentation in data-loading workers' in text for text in heard)
    train(tmp_path, SAMPLERS['infinite'], resume=True, **options)
    assert any('augmentation in data-loading workers begins anew' in text for text in heard)


def test_nothing_that_an_evaluation_draws_changes_the_training(tmp_path):
    with_it, without = (
        train(tmp_path / str(validate), SAMPLERS['infinite'], **ITERATIONS, val_interval=2, validate=validate)
        for validate in (True, False)
    )
    assert all(torch.equal(one, other) for one, other in zip(weights(with_it)[0], weights(without)[0]))
