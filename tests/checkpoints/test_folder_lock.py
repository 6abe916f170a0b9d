"""Two trainings in one work folder: the second is refused, and a kill leaves no lock behind."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
from conftest import ALONE, ROOT, on_mnist, run

from mmlckd.checkpoints import lock_folder, unlock_folders

HOLD = (
    'import sys, time; from mmlckd.checkpoints import lock_folder\n'
    'lock_folder(sys.argv[1]); print("held", flush=True); {more}; time.sleep(60)'
)


@pytest.fixture(autouse=True)
def unlocked():
    yield
    unlock_folders()


@pytest.fixture
def holder(tmp_path):
    """Start another process that holds the folder."""
    jobs = []

    def start(more='pass'):
        job = subprocess.Popen(
            [sys.executable, '-c', HOLD.format(more=more), tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        jobs.append(job)
        assert job.stdout.readline() == 'held\n'
        return job

    yield start
    for job in jobs:
        job.kill()
        job.wait()


def test_a_folder_is_one_trainings(holder, tmp_path):
    job = holder()
    with pytest.raises(
        ValueError, match=rf'is in use by another training \(process {job.pid} on .*\): wait for its end'
    ):
        lock_folder(tmp_path)
    assert lock_folder(tmp_path / 'another')
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert lock_folder(tmp_path)


def test_a_worker_that_outlives_its_killed_training_holds_nothing(holder, tmp_path):
    job = holder(more='import os; pid = os.fork(); print(pid, flush=True) if pid else None')
    worker = int(job.stdout.readline())
    job.send_signal(signal.SIGKILL)
    job.wait()
    try:
        os.kill(worker, 0)  # it is there
        assert lock_folder(tmp_path)
    finally:
        os.kill(worker, signal.SIGKILL)


def test_one_process_may_train_again_and_a_fork_of_it_may_not(tmp_path):
    assert lock_folder(tmp_path) and lock_folder(tmp_path)
    process = multiprocessing.get_context('fork').Process(target=_in_a_fork, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 7
    unlock_folders()
    again = multiprocessing.get_context('fork').Process(target=_in_a_fork, args=(tmp_path,))
    again.start()
    again.join()
    assert again.exitcode == 0


def _in_a_fork(folder):
    try:
        lock_folder(folder)
    except ValueError:
        os._exit(7)
    os._exit(0)


@pytest.mark.parametrize('code', [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks_is_no_obstacle(code, tmp_path, monkeypatch):
    heard = []

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, 'lockf', refuse)
    monkeypatch.setattr('mmlckd.checkpoints.folder_lock.print_log', lambda text, *_: heard.append(text))
    assert lock_folder(tmp_path) is False
    assert len(heard) == 1 and 'is on a file system without locks' in heard[0]


def test_a_second_training_in_the_folder_of_a_running_one(holder, mnist, tmp_path):
    job = holder()
    command = [
        'tools/train.py',
        ALONE,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *on_mnist(mnist),
        'train_cfg.max_epochs=1',
    ]
    result = run(*command)
    sentence = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and sentence.startswith(
        f"error: work_dir '{tmp_path}' is in use by another training ("
    )
    assert not list(tmp_path.glob('*.pth'))
    job.kill()
    job.wait()
    result = run(*command)
    assert result.returncode == 0, result.stderr[-3000:]
