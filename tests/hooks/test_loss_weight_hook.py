"""A weight that is a function of the epoch or iteration, also after a resume."""

from __future__ import annotations

import pytest
from mmengine.hooks import Hook
from short_run import runner

from mmlckd.registry import HOOKS


class Weights(Hook):
    """Notes the weight in each iteration."""

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append(round(runner.model.distiller.losses['lipschitz'].loss_weight, 6))


def hook(**kwargs):
    return dict(type='mmlckd.LossWeightHook', loss='lipschitz', **kwargs)


@pytest.mark.parametrize(
    'length, options, expected',
    [
        (dict(epochs=3), dict(milestones=[1, 2], weights=[0.5, 0.25]), [1, 1, 0.5, 0.5, 0.25, 0.25]),
        (dict(epochs=3), dict(milestones=[2], weights=[0.0], ramp=True), [1, 1, 0.5, 0.5, 0, 0]),
        (dict(iters=5), dict(milestones=[2, 4], weights=[3.0, 1.0], by_epoch=False), [1, 1, 3, 3, 1]),
        (dict(iters=5), dict(milestones=[4], weights=[3.0], by_epoch=False, ramp=True), [1, 1.5, 2, 2.5, 3]),
    ],
)
def test_weights_over_time(classification, tmp_path, length, options, expected):
    weights = Weights()
    runner(classification, tmp_path, [hook(**options), weights], **length).train()
    assert weights.seen == expected


def test_a_resumed_run_has_the_weight_of_its_epoch(classification, tmp_path):
    hooks = [hook(milestones=[1, 2], weights=[0.5, 0.25])]
    runner(classification, tmp_path, hooks, epochs=2).train()
    weights = Weights()
    runner(classification, tmp_path, [*hooks, weights], epochs=3, resume=True).train()
    assert weights.seen == [0.25, 0.25]


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(milestones=[1, 2], weights=[1.0]), '2 milestones and 1 weights'),
        (dict(milestones=[2, 2], weights=[1.0, 1.0]), r'milestones is \[2, 2\]'),
        (dict(milestones=[1], weights=[-1.0]), r'weights is \[-1.0\]'),
    ],
)
def test_lists_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(hook(**options))


def test_an_unknown_loss_is_refused(classification, tmp_path):
    with pytest.raises(ValueError, match="LossWeightHook.loss is 'kd': name one of .* there are 'lipschitz'"):
        runner(
            classification, tmp_path, [dict(type='mmlckd.LossWeightHook', loss='kd', milestones=[1], weights=[1.0])]
        ).train()
