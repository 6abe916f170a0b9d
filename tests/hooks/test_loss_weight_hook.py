"""A weight that is a function of the epoch or iteration, also after a resume."""

from __future__ import annotations

import pytest
from mmengine.hooks import Hook
from short_run import distillation

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
    distillation(classification, tmp_path, [hook(**options), weights], **length).train()
    assert weights.seen == expected


def test_a_resumed_run_has_the_weight_of_its_epoch(classification, tmp_path):
    hooks = [hook(milestones=[1, 2], weights=[0.5, 0.25])]
    distillation(classification, tmp_path, hooks, epochs=2).train()
    weights = Weights()
    distillation(classification, tmp_path, [*hooks, weights], epochs=3, resume=True).train()
    assert weights.seen == [0.25, 0.25]


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(milestones=[1, 2], weights=[1.0]), '2 milestones and 1 weights'),
        (dict(milestones=[2, 2], weights=[1.0, 1.0]), r'milestones is \[2, 2\]: give increasing numbers'),
        (dict(milestones=[0], weights=[1.0]), r'milestones is \[0\]: give one or more whole numbers above 0'),
        (dict(milestones=[0.5], weights=[1.0]), r'milestones\[0\] is 0.5: give a whole number'),
        (
            dict(milestones=1, weights=[1.0]),
            r'milestones is 1: give LossWeightHook a list of whole numbers, such as \[60, 120\]',
        ),
        (dict(milestones=[], weights=[]), r'milestones is \[\]: give one or more whole numbers above 0'),
        (dict(milestones=None, weights=None), 'milestones is None'),
        (dict(milestones=[1], weights=[-1.0]), r'weights\[0\] is -1.0: it must not be negative'),
        (
            dict(milestones=[1], weights=[float('nan')]),
            r'LossWeightHook.weights\[0\] is nan: give a finite number, 0 or above',
        ),
        (
            dict(milestones=[1, 2], weights=[0.0, float('inf')]),
            r'weights\[1\] is inf: give a finite number, 0 or above',
        ),
        (dict(milestones=[1], weights=['1']), r"weights\[0\] is '1': give a number"),
        (dict(milestones=[1], weights=[1.0], by_epoch='no'), "by_epoch is 'no': give LossWeightHook True or False"),
        (dict(milestones=[1], weights=[1.0], ramp=None), 'ramp is None: give LossWeightHook True or False'),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(hook(**options))


ONE = dict(milestones=[1], weights=[1.0], by_epoch=False)


@pytest.mark.parametrize(
    'hooks, message',
    [
        (
            [dict(ONE, type='mmlckd.LossWeightHook', loss='kd')],
            "LossWeightHook.loss is 'kd': name one of the distillation losses with a loss_weight: 'lipschitz'",
        ),
        ([hook(**{**ONE, 'by_epoch': True})], r'milestones is \[1\], in epochs, and the run counts iterations \(4\)'),
        (
            [hook(**ONE), hook(**{**ONE, 'milestones': [2]})],
            "two hooks of type LossWeightHook with loss='lipschitz': give one with all milestones",
        ),
    ],
)
def test_hooks_that_the_run_cannot_obey_are_refused(hooks, message, classification, tmp_path):
    with pytest.raises(ValueError, match=message):
        distillation(classification, tmp_path, hooks).train()


@pytest.mark.parametrize(
    'length, options, sentence',
    [
        (dict(epochs=1), dict(milestones=[1, 2]), 'has 1, 2, and the run ends after 1 epochs: these do nothing'),
        (dict(iters=2), dict(milestones=[1, 2], by_epoch=False), 'has 2, and the run ends after 2 iterations'),
    ],
)
def test_milestones_behind_the_end_are_named(length, options, sentence, classification, tmp_path, capfd):
    distillation(classification, tmp_path, [hook(**options, weights=[0.5, 0.25])], **length).train()
    assert f'LossWeightHook.milestones {sentence}' in ''.join(capfd.readouterr())
