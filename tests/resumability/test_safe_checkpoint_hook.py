"""Checkpoints under failing writes and SIGTERM, on a model of three layers; tools/benchmarks/crash_resume.py kills the real one."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time

import pytest
import torch
from mmengine.runner import Runner
from small_network import Model
from torch.utils.data import DataLoader

from mmlckd.checkpoints import newest_checkpoint, read_checkpoint
from mmlckd.resumability import PreemptionHook, RandomStateHook, SafeCheckpointHook

SAFE = dict(type='mmlckd.SafeCheckpointHook')


def runner(folder, hooks, checkpoint, accumulate=1, resume=False, **loop):
    """Runner of four iterations an epoch."""
    data = DataLoader([dict(inputs=torch.randn(2, 8, 6), labels=torch.tensor(i % 3)) for i in range(8)], batch_size=2)
    return Runner(
        Model(),
        str(folder),
        data,
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=accumulate),
        default_hooks=dict(logger=None, checkpoint=dict(dict(by_epoch=loop['by_epoch'], interval=1), **checkpoint)),
        custom_hooks=hooks,
        default_scope='mmengine',
        experiment_name=f'{folder.name}_{resume}',
        resume=resume,
    )


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth*'))


def test_the_only_checkpoint_outlives_a_write_that_fails(tmp_path, monkeypatch):
    replace, calls = os.replace, []

    def full(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, 'No space left on device')
        replace(*paths)

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space'):
        runner(tmp_path, [], dict(SAFE, max_keep_ckpts=1), by_epoch=True, max_epochs=3).train()
    assert names(tmp_path) == ['epoch_1.pth']
    assert newest_checkpoint(tmp_path) == str(tmp_path / 'epoch_1.pth')


def test_outdated_checkpoints_are_removed(tmp_path):
    runner(tmp_path, [], dict(SAFE, max_keep_ckpts=1), by_epoch=True, max_epochs=3).train()
    assert names(tmp_path) == ['epoch_3.pth'] and newest_checkpoint(tmp_path) == str(tmp_path / 'epoch_3.pth')


def test_a_kill_between_writing_and_removing_leaves_nothing_behind(tmp_path, monkeypatch):
    safe = dict(SAFE, max_keep_ckpts=1)

    def killed(self, run, *_):
        if self.saved_iter == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SafeCheckpointHook, '_remove_outdated', killed)
        runner(tmp_path, [], safe, by_epoch=True, max_epochs=2).train()
    assert names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']
    runner(tmp_path, [], safe, resume=True, by_epoch=True, max_epochs=2).train()
    assert names(tmp_path) == ['epoch_2.pth']


class TerminatedAt(PreemptionHook):
    """The process gets SIGTERM in its third iteration."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize('accumulate, written_at', [(1, 3), (2, 4)])
def test_sigterm_is_answered_after_a_whole_step(accumulate, written_at, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    run = runner(
        tmp_path, [RandomStateHook(), TerminatedAt()], dict(SAFE, interval=100), accumulate, by_epoch=False, max_iters=6
    )
    try:
        with pytest.raises(SystemExit) as ended:
            run.train()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143 and names(tmp_path) == ['preempted.pth']
    assert newest_checkpoint(tmp_path) == str(tmp_path / 'preempted.pth')
    content = read_checkpoint(str(tmp_path / 'preempted.pth'))
    assert content['meta']['iter'] == written_at and len(content['random_states']) == 1


class Forking(PreemptionHook):
    """A process is begun and ended while training, as the pools of some metrics are."""

    def after_train_iter(self, *args, **kwargs):
        worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))
        worker.start()
        worker.terminate()
        worker.join(timeout=20)
        assert worker.exitcode == -signal.SIGTERM


def test_processes_forked_while_training_end_by_sigterm(tmp_path):
    runner(tmp_path, [Forking()], SAFE, by_epoch=False, max_iters=1).train()


def test_a_run_that_ends_gives_sigterm_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    runner(tmp_path, [PreemptionHook()], SAFE, by_epoch=False, max_iters=1).train()
    assert signal.getsignal(signal.SIGTERM) is before


def test_preemption_wants_a_hook_to_write_with(tmp_path):
    with pytest.raises(
        ValueError, match='PreemptionHook finds no SafeCheckpointHook to write with: set default_hooks.checkpoint.type'
    ):
        runner(tmp_path, [PreemptionHook()], dict(type='CheckpointHook'), by_epoch=False, max_iters=1).train()
