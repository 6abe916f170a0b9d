"""Files that are written whole, and the checkpoint that a run is resumed from."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest
import torch
from conftest import run

from mmlckd.checkpoints import AtomicBackend, newest_checkpoint
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


def save(path, age=0):
    torch.save(dict(state_dict=dict(weight=torch.randn(50))), path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


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


def test_a_part_left_behind_is_taken_over(tmp_path):
    (tmp_path / 'epoch_1.pth.part').write_bytes(b'half')
    AtomicBackend().put(b'whole', tmp_path / 'epoch_1.pth')
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [('epoch_1.pth', b'whole')]


def test_the_named_checkpoint_is_resumed_from_though_others_are_newer(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    named = save(tmp_path / 'epoch_3.pth', age=100)
    save(tmp_path / 'epoch_60.pth')
    (tmp_path / 'last_checkpoint').write_text(str(named))
    assert newest_checkpoint(tmp_path) == str(named)


@pytest.mark.parametrize(
    'damage', ['cut short', 'a flipped bit', 'gone', 'named by an empty file', 'work folder moved']
)
def test_a_broken_checkpoint_is_passed_over(damage, tmp_path):
    save(tmp_path / 'epoch_1.pth', age=200)
    before, last = save(tmp_path / 'epoch_2.pth', age=100), save(tmp_path / 'epoch_3.pth')
    save(tmp_path / 'best_epoch_3.pth')  # weights alone
    pointer, content = tmp_path / 'last_checkpoint', last.read_bytes()
    pointer.write_text(str(last))
    expected = before
    if damage == 'cut short':
        last.write_bytes(content[: len(content) // 2])
    elif damage == 'a flipped bit':
        with torch.serialization.safe_globals([]):
            weight = torch.load(last)['state_dict']['weight'].numpy().tobytes()
        place = content.index(weight) + 17
        last.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    elif damage == 'gone':
        last.unlink()
    else:
        pointer.write_text('' if damage == 'named by an empty file' else 'elsewhere/epoch_3.pth')
        expected = last
    assert newest_checkpoint(tmp_path) == str(expected)


def test_nothing_but_broken_checkpoints_is_an_error(tmp_path):
    (tmp_path / 'epoch_1.pth').write_bytes(b'PK')
    with pytest.raises(
        ValueError,
        match=r'no sound checkpoint to resume from, .*epoch_1.pth cannot be read: train anew without --resume',
    ):
        newest_checkpoint(tmp_path)


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


def test_a_work_folder_that_cannot_be_written_is_named_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(
        PermissionError, match=rf"--work-dir is '{tmp_path}/a/b', and '{tmp_path}' may not be written: name another"
    ):
        check_folder('--work-dir', tmp_path / 'a' / 'b')
