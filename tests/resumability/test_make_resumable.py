"""What a config says is compared as classes, however it says it; what the user chose stays."""

from __future__ import annotations

import sys

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from short_run import training

from mmlckd.registry import HOOKS, LOOPS, class_of, same_type
from mmlckd.resumability import ResumableEpochLoop, make_resumable


class OwnHook(CheckpointHook):
    pass


@MMENGINE_LOOPS.register_module()
class OwnLoop(EpochBasedTrainLoop):
    pass


@pytest.fixture
def heard(monkeypatch):
    found = []
    module = sys.modules['mmlckd.resumability.make_resumable']  # which the function of that name hides
    monkeypatch.setattr(module, 'print_log', lambda text, *_: found.append(text))
    return found


FORMS = ['CheckpointHook', 'mmengine.CheckpointHook', 'mmengine.hooks.CheckpointHook', CheckpointHook]


@pytest.mark.parametrize('kind', FORMS)
def test_mmengines_checkpoint_hook_in_every_form(kind, heard):
    config = Config(dict(default_hooks=dict(checkpoint=dict(type=kind, interval=3, max_keep_ckpts=2))))
    make_resumable(config)
    checkpoint = dict(type='mmlckd.SafeCheckpointHook', interval=3, max_keep_ckpts=2)
    assert config.default_hooks.checkpoint == checkpoint and 'preemption' in config.default_hooks
    assert len(heard) == 1 and 'mmlckd.SafeCheckpointHook in the place of ' in heard[0]


@pytest.mark.parametrize('kind', ['mmlckd.SafeCheckpointHook', OwnHook, 'no.such.Hook', 'NoSuchHook'])
def test_other_checkpoint_hooks_stay(kind, heard):
    config = Config(dict(default_hooks=dict(checkpoint=dict(type=kind, interval=3))))
    make_resumable(config)
    assert config.default_hooks.checkpoint == dict(type=kind, interval=3) and not heard
    assert ('preemption' in config.default_hooks) == (kind == 'mmlckd.SafeCheckpointHook')


@pytest.mark.parametrize(
    'saving, becomes',
    [
        (None, dict(by_epoch=False, interval=500)),
        (
            dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
            dict(by_epoch=False, interval=500, max_keep_ckpts=2),
        ),
        (dict(type='CheckpointHook', interval=300), dict(by_epoch=False, interval=300)),
        (dict(type='CheckpointHook', interval=1, by_epoch=True), dict(by_epoch=True, interval=1)),
        (dict(type=OwnHook, interval=1), dict(interval=1)),
    ],
)
def test_a_loop_without_epochs_saves_by_iterations(saving, becomes):
    hooks = {} if saving is None else dict(checkpoint=saving)
    config = Config(dict(train_cfg=dict(by_epoch=False, max_iters=20000, val_interval=500), default_hooks=hooks))
    make_resumable(config)
    found = dict(config.default_hooks.checkpoint)
    found.pop('type')
    assert found == becomes
    before = config.to_dict()
    make_resumable(config)
    assert config.to_dict() == before


@pytest.mark.parametrize('fields', [{}, dict(default_hooks={}), dict(default_hooks=dict(logger=None))])
def test_a_config_without_hooks_gets_them_all(fields):
    config = Config(fields)
    make_resumable(config)
    added = {'run_check', 'random_state', 'gradient_state', 'checkpoint', 'preemption'}
    assert added <= set(config.default_hooks)
    assert config.default_hooks.checkpoint == dict(type='mmlckd.SafeCheckpointHook', interval=1)


def test_hooks_that_are_switched_off_stay_off():
    off = dict(checkpoint=None, run_check=None, random_state=None, gradient_state=None, preemption=None)
    config = Config(dict(default_hooks=dict(off)))
    make_resumable(config)
    assert config.default_hooks == off


@pytest.mark.parametrize(
    'loop, becomes',
    [
        (dict(by_epoch=True, max_epochs=2), dict(type='mmlckd.ResumableEpochLoop', max_epochs=2)),
        (dict(by_epoch=False, max_iters=2), dict(type='mmlckd.ResumableIterLoop', max_iters=2)),
        *(
            (dict(type=kind, max_epochs=2), dict(type='mmlckd.ResumableEpochLoop', max_epochs=2))
            for kind in ('EpochBasedTrainLoop', 'mmengine.EpochBasedTrainLoop', EpochBasedTrainLoop)
        ),
        (dict(type=IterBasedTrainLoop, max_iters=2), dict(type='mmlckd.ResumableIterLoop', max_iters=2)),
    ],
)
def test_mmengines_loops_in_every_form(loop, becomes, heard):
    config = Config(dict(train_cfg=loop))
    make_resumable(config)
    assert config.train_cfg == becomes and any('train_cfg: ' in text for text in heard)


@pytest.mark.parametrize(
    'loop',
    [
        dict(type='OwnLoop', max_epochs=2),
        dict(type=OwnLoop, max_epochs=2),
        dict(type='mmlckd.ResumableEpochLoop', max_epochs=2),
        dict(type='OwnLoop', by_epoch=True, max_epochs=2),
        dict(max_epochs=2),
        None,
    ],
)
def test_the_users_own_loop_stays(loop, heard):
    config = Config(dict(train_cfg=loop))
    make_resumable(config)
    assert config.train_cfg == loop and not any('train_cfg' in text for text in heard)


@pytest.mark.parametrize('kind', ['OwnLoop', 'EpochBasedTrainLoop'])
def test_a_type_and_by_epoch_together_are_mmengines_to_refuse(kind, tmp_path):
    config = Config(dict(train_cfg=dict(type=kind, by_epoch=True, max_epochs=1)))
    make_resumable(config)
    with pytest.raises(RuntimeError, match='Only one of `type` or `by_epoch` can exist'):
        training(tmp_path, [], dict(type='CheckpointHook'), **config.train_cfg).train()


def test_same_type():
    assert class_of(None, HOOKS) is None and class_of('NoSuchHook', HOOKS) is None
    assert class_of('mmlckd.ResumableEpochLoop', MMENGINE_LOOPS) is ResumableEpochLoop
    assert same_type('ResumableEpochLoop', LOOPS, ResumableEpochLoop)
    assert same_type('CheckpointHook', MMENGINE_HOOKS, CheckpointHook)
    assert not same_type(OwnHook, HOOKS, CheckpointHook)
