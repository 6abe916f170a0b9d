"""The optimizer's first step after a restart is that of a new optimizer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from short_run import runner

from mmlckd.registry import HOOKS


class Buffers(Hook):
    """Notes of each iteration whether momentum was this step's gradient alone, decay included, as in a first step."""

    def before_train(self, runner):
        self.first = []
        optimizer = runner.optim_wrapper.optimizer
        group = optimizer.param_groups[0]
        parameter = group['params'][0]

        def before(*_):
            self.gradient = parameter.grad + group['weight_decay'] * parameter.detach()

        def after(*_):
            self.first.append(torch.allclose(optimizer.state[parameter]['momentum_buffer'], self.gradient))

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)


def test_momentum_starts_anew_at_the_named_epochs_and_after_a_resume(classification, tmp_path):
    buffers = Buffers()
    hooks = [dict(type='mmlckd.MomentumRestartHook', epochs=[1, 2])]
    runner(classification, tmp_path / 'a', [*hooks, buffers], epochs=2).train()
    assert buffers.first == [True, False, True, False]  # two iterations an epoch
    again = Buffers()
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / 'last_checkpoint').write_text(str(tmp_path / 'a' / 'epoch_2.pth'))
    runner(classification, tmp_path / 'b', [*hooks, again], epochs=4, resume=True).train()
    assert again.first == [True, False, False, False]  # epoch 2 restarts, epoch 3 does not


@pytest.mark.parametrize('batches_done, kept', [(0, False), (1, True)])
def test_an_epoch_that_is_resumed_in_its_midst_keeps_its_momentum(batches_done, kept):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    optimizer.state['momentum'] = 1
    run = SimpleNamespace(
        epoch=1,
        train_loop=SimpleNamespace(batches_done=batches_done),
        optim_wrapper=SimpleNamespace(optimizer=optimizer),
    )
    HOOKS.build(dict(type='mmlckd.MomentumRestartHook', epochs=[1])).before_train_epoch(run)
    assert bool(optimizer.state) == kept


def test_wrong_epochs_are_refused():
    with pytest.raises(ValueError, match=r'MomentumRestartHook.epochs is \[-1\]'):
        HOOKS.build(dict(type='mmlckd.MomentumRestartHook', epochs=[-1]))
