"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys

import pytest
from conftest import ROOT, run

from mmlckd.checkpoints import AtomicBackend, newest_checkpoint, remove_leftovers
from mmlckd.cli import check_folder

ALONE = 'configs/demo/mnist5k_wrn10-1.py'


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1.5 MiB: room for the logs and two checkpoints of the demo's student, and not for a third."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1536k', 'tmpfs', folder], capture_output=True).returncode:
        pytest.skip('a small disk takes the right to mount one')
    yield folder
    subprocess.run(['umount', '-l', folder], check=True)


@pytest.mark.parametrize('broken', ['fsync', 'replace'])
def test_a_write_that_fails_leaves_what_was_there(broken, tmp_path, monkeypatch):
    path = tmp_path / 'epoch_1.pth'
    AtomicBackend().put(b'old', path)

    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(OSError, match='No space left on device: .*epoch_1.pth'):
        AtomicBackend().put(b'new', path)
    assert [file.name for file in tmp_path.iterdir()] == ['epoch_1.pth'] and path.read_bytes() == b'old'


def part(path, name, writer):
    (path / f'{name}.{writer}.part').write_bytes(b'half')


@pytest.fixture
def ended():
    """Number of a process that has ended."""
    process = subprocess.Popen(['true'])
    process.wait()
    return process.pid


def test_parts_that_killed_processes_left_are_removed(ended, tmp_path):
    host = socket.gethostname().replace('.', '_')
    running = os.getppid()
    for writer in (f'{host}-{ended}', f'{host}-{running}', f'another-{ended}'):
        part(tmp_path, 'epoch_1.pth', writer)
    (tmp_path / 'epoch_1.pth.part').write_bytes(b'half')  # as the version before named it
    part(tmp_path, 'epoch_2.pth', f'{host}-{ended}')
    AtomicBackend().put(b'whole', tmp_path / 'epoch_1.pth')
    others = {f'epoch_1.pth.{host}-{running}.part', f'epoch_1.pth.another-{ended}.part'}
    assert {file.name for file in tmp_path.iterdir()} == {'epoch_1.pth', f'epoch_2.pth.{host}-{ended}.part'} | others
    remove_leftovers(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {'epoch_1.pth'} | others
    (tmp_path / 'film.part').write_bytes(b'of the user')
    (tmp_path / 'data.zip.another-1.part').write_bytes(b'of the user')
    remove_leftovers(tmp_path, alone=True)
    assert {file.name for file in tmp_path.iterdir()} == {'epoch_1.pth', 'film.part', 'data.zip.another-1.part'}


def test_two_processes_that_write_one_name_do_not_write_one_part(tmp_path):
    """Each time one of the two contents stands there, whole."""
    program = (
        'import sys; from mmlckd.checkpoints import AtomicBackend\n'
        'for _ in range(60): AtomicBackend().put(sys.argv[1].encode() * 100_000, sys.argv[2])'
    )
    path = tmp_path / 'record.json'
    jobs = [subprocess.Popen([sys.executable, '-c', program, letter, path], cwd=ROOT) for letter in 'ab']
    assert [job.wait() for job in jobs] == [0, 0]
    assert path.read_bytes() in (b'a' * 100_000, b'b' * 100_000) and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_ends_in_one_sentence_and_keeps_the_checkpoints_before(small_disk, mnist):
    options = [
        'train_cfg.max_epochs=50',
        'train_cfg.val_interval=50',
        'default_hooks.checkpoint.interval=1',
        'default_hooks.checkpoint.max_keep_ckpts=-1',
    ]
    result = run(
        'tools/train.py',
        ALONE,
        '--work-dir',
        small_disk / 'run',
        '--cfg-options',
        *options,
        *(f'{name}_dataloader.dataset.data_root={mnist}' for name in ('train', 'val', 'test')),
    )
    assert result.returncode == 1, result.stderr[-3000:]
    assert (
        'no space left on device; what was written before is intact' in result.stderr.splitlines()[-1]
        and 'Traceback' not in result.stderr
    )
    assert not list(small_disk.rglob('*.part'))
    checkpoints = sorted((small_disk / 'run').glob('epoch_*.pth'))
    assert checkpoints and newest_checkpoint(small_disk / 'run') == str(checkpoints[-1])


def test_an_export_to_a_full_disk_leaves_nothing(small_disk, trained_alone):
    (small_disk / 'filling').write_bytes(bytes(1_400_000))  # of 1,572,864; the student's weights have 300,000
    result = run('tools/export_student.py', trained_alone, small_disk / 'student.pth')
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert 'no space left on device; what was written before is intact' in result.stderr.splitlines()[-1]
    assert [path.name for path in small_disk.iterdir()] == ['filling']


def test_a_work_folder_that_cannot_be_written_is_named_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(
        PermissionError, match=rf"--work-dir is '{tmp_path}/a/b', and '{tmp_path}' may not be written: name another"
    ):
        check_folder('--work-dir', tmp_path / 'a' / 'b')
