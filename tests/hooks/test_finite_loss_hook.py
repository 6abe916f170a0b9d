"""Losses that are not finite are named, lost trainings end, samples left out are counted."""

from __future__ import annotations

import pytest
import torch
from mmengine.hooks import Hook
from short_run import distillation

from mmlckd.registry import HOOKS


class Spoil(Hook):
    """Makes the student's own loss NaN from some iteration on, for some iterations."""

    def __init__(self, start, count):
        self.iterations = range(start, start + count)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        runner.model.head.loss_module.loss_weight = torch.nan if runner.iter + 1 in self.iterations else 1.0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for parameter in runner.model.parameters():
            parameter.data.nan_to_num_(0.1)


@pytest.fixture
def heard(monkeypatch):
    """Sentences that the hook logs as warnings."""
    sentences = []
    monkeypatch.setattr(
        'mmlckd.hooks.finite_loss_hook.print_log', lambda message, logger, level: sentences.append(message)
    )
    return sentences


def test_the_term_and_the_iteration_are_named_once_an_interval(classification, tmp_path, heard):
    hooks = [Spoil(2, 3), dict(type='mmlckd.FiniteLossHook', interval=2)]
    distillation(classification, tmp_path, hooks, iters=5).train()
    assert heard == [f'at iteration {i} loss is nan and student.loss is nan' for i in (2, 4)]


def test_training_ends_when_the_loss_stays_lost(classification, tmp_path, heard):
    hooks = [Spoil(2, 99), dict(type='mmlckd.FiniteLossHook', patience=3)]
    with pytest.raises(ValueError, match=r'the loss has not been finite since iteration 2 \(now loss is nan'):
        distillation(classification, tmp_path, hooks, iters=9).train()


def test_samples_left_out_are_counted_once(classification, tmp_path, heard):
    run = distillation(classification, tmp_path, [dict(type='mmlckd.FiniteLossHook', interval=2)], iters=4)
    run.model.distiller.teacher.load()
    for parameter in run.model.distiller.teacher.model.backbone.layer3.parameters():
        parameter.data.zero_()  # batch norms with neither weight nor bias: a dead stage
    run.model.distiller.teacher.model.backbone.layer3.register_forward_hook(lambda module, args, output: output * 0)
    run.train()
    # one pair of taps, two images a batch, two iterations between reports
    assert heard == [
        f'up to iteration {end} losses.lipschitz left out 4 samples, counted by pair of taps: it is undefined for '
        'them, for example because a map is zero or not finite, or a label is no class'
        for end in (2, 4)
    ]


@pytest.mark.parametrize('field', ['interval', 'patience'])
@pytest.mark.parametrize('value', [0, -1])
def test_counts_below_one_are_refused(field, value):
    with pytest.raises(ValueError, match=f'^FiniteLossHook.{field} is {value}: give at least 1 iteration$'):
        HOOKS.build({'type': 'mmlckd.FiniteLossHook', field: value})


@pytest.mark.parametrize('field', ['interval', 'patience'])
@pytest.mark.parametrize('value', [1.5, None, '50'])
def test_wrong_types_are_refused(field, value):
    with pytest.raises(ValueError, match=f'^{field} is {value!r}: give FiniteLossHook a whole number, such as 50$'):
        HOOKS.build({'type': 'mmlckd.FiniteLossHook', field: value})


def test_two_hooks_are_refused(classification, tmp_path):
    hooks = [dict(type='mmlckd.FiniteLossHook', patience=patience) for patience in (50, 1000)]
    with pytest.raises(ValueError, match='two hooks of type FiniteLossHook: set its options in default_hooks'):
        distillation(classification, tmp_path, hooks).train()
