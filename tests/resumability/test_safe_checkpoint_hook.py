"""Checkpoints under failing writes and SIGTERM, on a model of three layers; tools/benchmarks/crash_resume.py kills the
real one.
"""

from __future__ import annotations

import builtins
import errno
import multiprocessing
import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import run_two_ranks
from mmengine.hooks import Hook
from short_run import SAFE, Accuracy, names, training

from mmlckd.checkpoints import newest_checkpoint, read_checkpoint
from mmlckd.resumability import PreemptionHook, RandomStateHook, SafeCheckpointHook


def test_the_only_checkpoint_outlives_a_write_that_fails(tmp_path, monkeypatch):
    replace, calls = os.replace, []

    def full(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, 'No space left on device')
        replace(*paths)

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space'):
        training(tmp_path, [], dict(SAFE, max_keep_ckpts=1), by_epoch=True, max_epochs=3).train()
    assert names(tmp_path) == ['epoch_1.pth']
    assert newest_checkpoint(tmp_path) == str(tmp_path / 'epoch_1.pth')


def test_outdated_checkpoints_are_removed(tmp_path):
    training(tmp_path, [], dict(SAFE, max_keep_ckpts=1), by_epoch=True, max_epochs=3).train()
    assert names(tmp_path) == ['epoch_3.pth'] and newest_checkpoint(tmp_path) == str(tmp_path / 'epoch_3.pth')


def test_a_kill_between_writing_and_removing_leaves_nothing_behind(tmp_path, monkeypatch):
    safe = dict(SAFE, max_keep_ckpts=1)

    def killed(self, run, **_):
        if self.saved_iter == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SafeCheckpointHook, '_remove_outdated', killed)
        training(tmp_path, [], safe, by_epoch=True, max_epochs=2).train()
    assert names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']
    training(tmp_path, [], safe, resume=True, by_epoch=True, max_epochs=2).train()
    assert names(tmp_path) == ['epoch_2.pth']


def test_an_evaluation_that_is_done_again_removes_the_former_best_one(tmp_path, monkeypatch):
    values = iter([0.1, KeyboardInterrupt, 0.2])

    def result(self, results):
        value = next(values)
        if value is KeyboardInterrupt:
            raise value
        return dict(accuracy=value)

    monkeypatch.setattr(Accuracy, 'compute_metrics', result)
    options = dict(checkpoint=dict(SAFE, save_best='accuracy', rule='greater'), max_epochs=2, validate=True)
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, [], **options).train()
    assert names(tmp_path) == ['best_accuracy_epoch_1.pth', 'epoch_1.pth', 'epoch_2.pth']
    training(tmp_path, [], resume=True, **options).train()
    assert names(tmp_path) == ['best_accuracy_epoch_2.pth', 'epoch_1.pth', 'epoch_2.pth']
    info = read_checkpoint(str(tmp_path / 'epoch_2.pth'))['message_hub']['runtime_info']
    assert info['best_score'] == 0.2 and info['best_ckpt'].endswith('best_accuracy_epoch_2.pth')


class Spoils(Hook):
    """The weights, or the loss alone, are not finite in some iterations."""

    priority = 'VERY_HIGH'

    def __init__(self, iterations, what):
        self.iterations, self.what = iterations, what

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter in self.iterations and self.what == 'weights':
            runner.model.fc.bias.data.fill_(float('nan'))
        if runner.iter in self.iterations and self.what == 'statistics':
            runner.model.bn.running_var.fill_(float('inf'))
        if runner.iter in self.iterations and self.what == 'loss':
            runner.message_hub.update_scalar('train/loss', float('inf'))


@pytest.mark.parametrize('what', ['weights', 'statistics'])
def test_a_run_that_diverges_keeps_its_sound_checkpoints(what, tmp_path):
    hooks = [Spoils(range(8, 99), what)]  # from the third epoch on
    training(tmp_path, hooks, dict(SAFE, max_keep_ckpts=2), max_epochs=6).train()
    assert names(tmp_path) == [f'epoch_{i}.pth' for i in (1, 2, 5, 6)]
    # resumed from the last one, it still is what it is
    training(tmp_path, hooks, dict(SAFE, max_keep_ckpts=2), resume=True, max_epochs=8).train()
    assert names(tmp_path) == [f'epoch_{i}.pth' for i in (1, 2, 7, 8)]
    # resumed from a sound one, it goes on with two
    training(tmp_path, [], dict(SAFE, max_keep_ckpts=2), resume=tmp_path / 'epoch_2.pth', max_epochs=5).train()
    assert {'epoch_4.pth', 'epoch_5.pth'} <= set(names(tmp_path)) and 'epoch_3.pth' not in names(tmp_path)


def test_nothing_is_removed_after_a_loss_that_is_not_finite_until_losses_are_again(tmp_path):
    run = training(tmp_path, [Spoils(range(9, 15), 'loss')], dict(SAFE, max_keep_ckpts=2), max_epochs=5)
    seen = []

    class Looks(Hook):
        priority = 'LOWEST'

        def after_train_epoch(self, runner):
            seen.append([name[6] for name in names(tmp_path)])

    run.register_hook(Looks())
    run.train()
    # the losses of epochs 3 and 4, iterations 8 to 15, were not all finite
    assert seen == [['1'], ['1', '2'], ['1', '2', '3'], ['1', '2', '3', '4'], ['4', '5']]


def test_a_best_checkpoint_gives_way_only_to_a_sound_run(tmp_path):
    safe = dict(SAFE, max_keep_ckpts=1, save_best='accuracy', rule='less')  # NaN compares as no better
    training(tmp_path, [Spoils(range(8, 99), 'weights')], safe, max_epochs=4, validate=True).train()
    sound = [name for name in names(tmp_path) if name in ('epoch_1.pth', 'epoch_2.pth')]
    best = [name for name in names(tmp_path) if name.startswith('best_')]
    assert sound and best


def test_fewer_checkpoints_to_keep_than_before(tmp_path):
    training(tmp_path, [], dict(SAFE, max_keep_ckpts=3), max_epochs=3).train()
    training(tmp_path, [], dict(SAFE, max_keep_ckpts=1), resume=True, max_epochs=4).train()
    assert names(tmp_path) == ['epoch_4.pth']


@pytest.mark.parametrize('failing', range(7))
def test_a_disk_that_is_full_at_any_write(failing, tmp_path, monkeypatch):
    """Each of the first writes fails once, be it a checkpoint's or the pointer's: what is there can be resumed from."""
    count = [0]

    def writes(function):
        def counted(*args, **kwargs):
            path = str(args[0])
            if path.endswith(('.part', 'last_checkpoint')) and set('wx') & set(str(args[1:])):
                count[0] += 1
                if count[0] == failing + 1:
                    raise OSError(errno.ENOSPC, 'No space left on device', path)
            return function(*args, **kwargs)

        return counted

    safe = dict(SAFE, max_keep_ckpts=1, save_best='accuracy', rule='greater')
    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space'):
        patch.setattr(builtins, 'open', writes(open))
        training(tmp_path, [], safe, max_epochs=6, validate=True).train()
    assert not list(tmp_path.glob('*.part'))
    last = newest_checkpoint(tmp_path)
    assert (last is None) == (failing == 0)
    if last:
        training(tmp_path, [], safe, resume=last, max_epochs=6, validate=True).train()
        assert 'epoch_6.pth' in names(tmp_path)


def test_what_sigterm_leaves_outlives_the_resume_that_reads_it(tmp_path):
    """Also where the run before had put its removal off."""
    run = training(tmp_path, [], dict(SAFE, interval=100), by_epoch=False, max_iters=2)
    run.train()
    run.message_hub.update_info('outdated', ['iter_1.pth', 'preempted.pth'])
    hook = next(hook for hook in run.hooks if isinstance(hook, SafeCheckpointHook))
    hook.save_preempted(run, dict(epoch=0, iter=2))
    assert read_checkpoint(tmp_path / 'preempted.pth')['message_hub']['runtime_info']['outdated'] == ['iter_1.pth']


@pytest.mark.parametrize('template', ['epoch_{}.pth', 'epoch_{:03d}.pth', '{:d}_of_a.b.pth', 'x{0}y.pth'])
def test_names_of_any_template_are_its_own(template):
    hook = SafeCheckpointHook(interval=1, filename_tmpl=template)
    for name in (template.format(7), f'best_acc_{template.format(7)}', 'preempted.pth'):
        assert hook._is_own(name), name
    for name in ('other.pth', template, f'../{template.format(7)}', f'{template.format(7)}.tmp'):
        assert not hook._is_own(name), name


class TerminatedAt(PreemptionHook):
    """The process gets SIGTERM in its third iteration."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize('accumulate, written_at', [(1, 3), (2, 4)])
def test_sigterm_is_answered_after_a_whole_step(accumulate, written_at, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    run = training(
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


@pytest.mark.parametrize('moment', ['save_checkpoint', 'visualizer.close'])
def test_further_signals_while_the_first_is_answered(moment, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    hooks = [RandomStateHook(), TerminatedAt()]
    run = training(tmp_path, hooks, dict(SAFE, interval=100), by_epoch=False, max_iters=6)
    owner, name = (run, moment) if moment == 'save_checkpoint' else (run.visualizer, 'close')
    function = getattr(owner, name)

    def interrupted(*args, **kwargs):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, interrupted)
    try:
        with pytest.raises(SystemExit) as ended:
            run.train()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143 and newest_checkpoint(tmp_path) == str(tmp_path / 'preempted.pth')


def test_no_rank_leaves_before_the_checkpoint_is_written(tmp_path, monkeypatch):
    """Launchers kill the other ranks when the first one ends."""
    waited = []
    ranks = SimpleNamespace(
        new_group=lambda backend: object(),
        all_reduce=lambda *_: None,
        barrier=lambda group: waited.append(names(tmp_path)),
        ReduceOp=SimpleNamespace(MIN=None, MAX=None),
    )
    monkeypatch.setattr('mmlckd.resumability.preemption_hook.distributed', ranks)
    monkeypatch.setattr('mmlckd.resumability.preemption_hook.get_world_size', lambda: 2)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit):
            training(tmp_path, [TerminatedAt()], dict(SAFE, interval=100), by_epoch=False, max_iters=6).train()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert waited == [['preempted.pth']]


class TerminatedAfterEvaluation(PreemptionHook):
    """The process gets SIGTERM when the evaluation of an epoch has ended."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def after_val_epoch(self, runner, metrics=None):
        if runner.epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGTERM)
        super().after_val_epoch(runner, metrics)


@pytest.mark.parametrize(
    'epoch, ended, left',
    [
        (1, pytest.raises(SystemExit, match='143'), ['epoch_1.pth', 'preempted.pth']),
        (2, nullcontext(), ['epoch_1.pth', 'epoch_2.pth']),
    ],
)
def test_a_training_that_is_over_ends_as_any(epoch, ended, left, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    try:
        with ended:
            training(tmp_path, [TerminatedAfterEvaluation(epoch)], SAFE, validate=True, max_epochs=2).train()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert names(tmp_path) == left


@pytest.mark.process
@pytest.mark.parametrize(
    'lengths, left_at, left', [((45, 40), 10, ['epoch_1.pth']), ((5, 40), 0, ['epoch_1.pth', 'preempted.pth'])]
)
def test_ranks_leave_an_evaluation_together(lengths, left_at, left, tmp_path):
    """One of them is told to end in its third iteration; the other would wait for its results in vain."""
    run_two_ranks(Path(__file__).with_name('told_to_end.py'), tmp_path, *lengths, left_at)
    assert names(tmp_path) == left


class Forking(PreemptionHook):
    """A process is begun and ended while training, as the pools of some metrics are."""

    def after_train_iter(self, *args, **kwargs):
        worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))
        worker.start()
        worker.terminate()
        worker.join(timeout=20)
        assert worker.exitcode == -signal.SIGTERM


def test_processes_forked_while_training_end_by_sigterm(tmp_path):
    training(tmp_path, [Forking()], SAFE, by_epoch=False, max_iters=1).train()


def test_a_run_that_ends_gives_sigterm_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    training(tmp_path, [PreemptionHook()], SAFE, by_epoch=False, max_iters=1).train()
    assert signal.getsignal(signal.SIGTERM) is before


def test_preemption_wants_a_hook_to_write_with(tmp_path):
    with pytest.raises(
        ValueError, match='PreemptionHook finds no SafeCheckpointHook to write with: set default_hooks.checkpoint.type'
    ):
        training(tmp_path, [PreemptionHook()], dict(type='CheckpointHook'), by_epoch=False, max_iters=1).train()
