"""The first iterations train the connectors alone."""

from __future__ import annotations

import pytest
import torch
from conftest import COMPILES
from mmengine.hooks import Hook
from short_run import distillation

from mmlckd.hooks import ConnectorWarmupHook
from mmlckd.registry import HOOKS


def parameters(folder, iteration):
    state = torch.load(folder / f'iter_{iteration}.pth', weights_only=False)['state_dict']
    return {
        part: {
            key: value
            for key, value in state.items()
            if key.startswith('distiller.') == (part == 'connectors') and key.endswith(('weight', 'bias'))
        }
        for part in ('student', 'connectors')
    }


def same(one, other):
    return all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize('accumulate', [1, 2])
def test_student_waits_and_then_learns(classification, tmp_path, accumulate):
    run = distillation(
        classification,
        tmp_path,
        [dict(type='mmlckd.ConnectorWarmupHook', iters=2 * accumulate)],
        iters=4 * accumulate,
        accumulate=accumulate,
    )
    before = {key: value.clone() for key, value in run.model.named_parameters() if not key.startswith('distiller.')}
    run.model._is_init = True  # as built: the runner would draw new weights
    run.train()
    during, after = parameters(tmp_path, 2 * accumulate), parameters(tmp_path, 3 * accumulate)
    assert all(torch.equal(value, during['student'][key]) for key, value in before.items())  # not even decayed
    assert not same(during['connectors'], parameters(tmp_path, accumulate)['connectors'])
    assert not same(during['student'], after['student'])


@COMPILES
def test_it_holds_where_something_is_compiled(classification, tmp_path):
    # torch 2.1 drops the step hooks of all optimizers then
    torch.compile(torch.nn.Linear(1, 1), backend='eager')(torch.ones(1, 1))
    run = distillation(classification, tmp_path, [dict(type='mmlckd.ConnectorWarmupHook', iters=2)], iters=3)
    run.train()
    one, two, three = (parameters(tmp_path, i) for i in (1, 2, 3))
    assert same(one['student'], two['student']) and not same(two['student'], three['student'])


class Killed(Hook):
    """Ends the run before its second iteration."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1:
            raise KeyboardInterrupt


def test_a_resumed_run_goes_on_waiting(classification, tmp_path):
    hooks = [dict(type='mmlckd.ConnectorWarmupHook', iters=3)]
    with pytest.raises(KeyboardInterrupt):
        distillation(classification, tmp_path, [*hooks, Killed()], iters=4).train()
    again = distillation(classification, tmp_path, hooks, iters=4, resume=True)
    again.train()
    one, three, four = (parameters(tmp_path, i) for i in (1, 3, 4))
    assert same(one['student'], three['student']) and not same(three['student'], four['student'])


@pytest.mark.parametrize('iters', [0, -3])
def test_counts_below_one_are_refused(iters):
    with pytest.raises(ValueError, match=f'^ConnectorWarmupHook.iters is {iters}: give at least 1 iteration$'):
        HOOKS.build(dict(type='mmlckd.ConnectorWarmupHook', iters=iters))


@pytest.mark.parametrize('iters', [2.5, True, None, '3'])
def test_wrong_types_are_refused(iters):
    sentence = f'^iters is {iters!r}: give ConnectorWarmupHook a whole number, such as 500$'
    with pytest.raises(ValueError, match=sentence):
        HOOKS.build(dict(type='mmlckd.ConnectorWarmupHook', iters=iters))
    with pytest.raises(ValueError, match=sentence):
        ConnectorWarmupHook(iters)


@pytest.mark.parametrize(
    'hooks, options, message',
    [
        ([3], dict(connectors=False), r'ConnectorWarmupHook\(iters=3\) finds no connectors'),
        ([4], {}, 'iters is 4 and the run has 4 iterations, so the student would never be trained'),
        ([5], dict(epochs=2), 'iters is 5 and the run has 4 iterations'),  # two epochs of two iterations
        ([2, 3], {}, 'two hooks of type ConnectorWarmupHook: give one, with the larger number of iterations'),
    ],
)
def test_a_run_that_it_cannot_serve_is_refused(hooks, options, message, classification, tmp_path):
    hooks = [dict(type='mmlckd.ConnectorWarmupHook', iters=iters) for iters in hooks]
    with pytest.raises(ValueError, match=message):
        distillation(classification, tmp_path, hooks, **options).train()
