"""The first iterations train the connectors alone."""

from __future__ import annotations

import pytest
import torch
from short_run import runner


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
    run = runner(
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


def test_a_resumed_run_goes_on_waiting(classification, tmp_path):
    hooks = [dict(type='mmlckd.ConnectorWarmupHook', iters=3)]
    runner(classification, tmp_path, hooks, iters=1).train()
    again = runner(classification, tmp_path, hooks, iters=4, resume=True)
    again.train()
    one, three, four = (parameters(tmp_path, i) for i in (1, 3, 4))
    assert same(one['student'], three['student']) and not same(three['student'], four['student'])


def test_without_connectors_it_is_refused(classification, tmp_path):
    with pytest.raises(ValueError, match=r'ConnectorWarmupHook\(iters=3\) finds no connectors'):
        runner(classification, tmp_path, [dict(type='mmlckd.ConnectorWarmupHook', iters=3)], connectors=False).train()
    with pytest.raises(ValueError, match='iters is 0'):
        runner(classification, tmp_path, [dict(type='mmlckd.ConnectorWarmupHook', iters=0)])
