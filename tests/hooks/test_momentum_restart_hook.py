"""The optimizer's first step after a restart is that of a new optimizer."""

from __future__ import annotations

import re

import pytest
import torch
from mmengine.hooks import Hook
from short_run import distillation

from mmlckd.hooks import MomentumRestartHook
from mmlckd.registry import HOOKS


class Buffers(Hook):
    """Notes in each iteration whether momentum is this step's gradient alone, with decay: that of a first step."""

    def before_train(self, runner):
        self.first = []
        optimizer = runner.optim_wrapper.optimizer
        group = optimizer.param_groups[0]
        parameter = group['params'][0]

        def before():
            self.gradient = parameter.grad + group['weight_decay'] * parameter.detach()

        def after():
            self.first.append(torch.allclose(optimizer.state[parameter]['momentum_buffer'], self.gradient))

        step = optimizer.step

        def noted(*args, **kwargs):
            before()
            step(*args, **kwargs)
            after()

        optimizer.step = noted


def test_momentum_starts_anew_at_the_named_epochs_and_after_a_resume(classification, tmp_path):
    buffers = Buffers()
    hooks = [dict(type='mmlckd.MomentumRestartHook', epochs=[1, 2])]
    distillation(classification, tmp_path / 'a', [*hooks, buffers], epochs=2).train()
    assert buffers.first == [True, False, True, False]  # two iterations an epoch
    again = Buffers()
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / 'last_checkpoint').write_text(str(tmp_path / 'a' / 'epoch_2.pth'))
    distillation(classification, tmp_path / 'b', [*hooks, again], epochs=4, resume=True).train()
    assert again.first == [True, False, False, False]  # epoch 2 restarts, epoch 3 does not


@pytest.mark.parametrize('batches_done, kept', [(0, False), (1, True)])
def test_a_run_resumed_within_an_epoch_keeps_its_momentum(batches_done, kept, classification, tmp_path):
    run = distillation(classification, tmp_path, [dict(type='mmlckd.MomentumRestartHook', epochs=[0])], epochs=1)
    hook = next(hook for hook in run.hooks if isinstance(hook, MomentumRestartHook))
    run.optim_wrapper = run.build_optim_wrapper(run.optim_wrapper)
    run._train_loop = run.build_train_loop(run.train_loop)
    hook.before_train(run)
    run.train_loop.batches_done = batches_done
    run.optim_wrapper.optimizer.state['momentum'] = 1
    hook.before_train_epoch(run)
    assert bool(run.optim_wrapper.optimizer.state) == kept


@pytest.mark.parametrize('epochs', [[-1], [3, -2], []])
def test_epochs_that_cannot_come_are_refused(epochs):
    with pytest.raises(ValueError, match=f'MomentumRestartHook.epochs is {re.escape(repr(epochs))}: give one or more'):
        HOOKS.build(dict(type='mmlckd.MomentumRestartHook', epochs=epochs))


@pytest.mark.parametrize(
    'epochs, message',
    [
        ([0.5], 'epochs[0] is 0.5: give a whole number'),
        ([1, True], 'epochs[1] is True: give a whole number'),
        (['1'], "epochs[0] is '1': give a whole number"),
        (3, 'epochs is 3: give MomentumRestartHook a list of whole numbers, such as [100, 150]'),
        (None, 'epochs is None: give MomentumRestartHook a list of whole numbers, such as [100, 150]'),
    ],
)
def test_wrong_types_are_refused(epochs, message):
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        HOOKS.build(dict(type='mmlckd.MomentumRestartHook', epochs=epochs))


def test_a_run_that_counts_iterations_is_refused(classification, tmp_path):
    hooks = [dict(type='mmlckd.MomentumRestartHook', epochs=[0, 1])]
    with pytest.raises(
        ValueError, match=r'epochs is \[0, 1\], in epochs, and the run counts iterations \(4\): train by'
    ):
        distillation(classification, tmp_path, hooks).train()


def test_two_hooks_are_refused(classification, tmp_path):
    hooks = [dict(type='mmlckd.MomentumRestartHook', epochs=[epoch]) for epoch in (0, 1)]
    with pytest.raises(ValueError, match='two hooks of type MomentumRestartHook: give one with all epochs'):
        distillation(classification, tmp_path, hooks, epochs=2).train()
