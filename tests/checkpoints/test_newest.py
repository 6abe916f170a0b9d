"""The checkpoint that a run is resumed from, whatever else lies in its folder."""

from __future__ import annotations

import os
import random

import pytest
import torch

from mmlckd.checkpoints import newest_checkpoint, read_checkpoint


def save(path, age=0):
    torch.save(dict(state_dict=dict(weight=torch.randn(50))), path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


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
        weight = read_checkpoint(last)['state_dict']['weight'].numpy().tobytes()
        place = content.index(weight) + 17
        last.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    elif damage == 'gone':
        last.unlink()
    else:
        pointer.write_text('' if damage == 'named by an empty file' else 'elsewhere/epoch_3.pth')
        expected = last
    assert newest_checkpoint(tmp_path) == str(expected)


def test_a_copied_folder_goes_on_from_its_own_file(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        save(tmp_path / name / 'preempted.pth')
        (tmp_path / name / 'last_checkpoint').write_text(str(tmp_path / 'a' / 'preempted.pth'))
    assert newest_checkpoint(tmp_path / 'b') == str(tmp_path / 'b' / 'preempted.pth')
    (tmp_path / 'b' / 'preempted.pth').unlink()  # its files may be elsewhere, where out_dir says so
    assert newest_checkpoint(tmp_path / 'b') == str(tmp_path / 'a' / 'preempted.pth')


def test_nothing_but_broken_checkpoints_is_an_error(tmp_path):
    (tmp_path / 'epoch_1.pth').write_bytes(b'PK')
    with pytest.raises(
        ValueError,
        match=r'no sound checkpoint to resume from, .*epoch_1.pth cannot be read: train anew without --resume',
    ):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'epoch_3.pth\0',
        b'\xff\xfeepoch_3.pth',  # UTF-16
        'epoch_3.pth'.encode('utf-16'),
        b'x' * 5000,
        b'/' + b'x/' * 3000,
        b'../' * 3000,
        b'.',
        b'/dev/zero',
        b'last_checkpoint',
        b'epoch_3.pth\nepoch_2.pth',
        bytes(range(256)),
    ],
)
def test_a_pointer_with_anything_in_it(content, tmp_path):
    newest = save(tmp_path / 'epoch_3.pth')
    save(tmp_path / 'epoch_2.pth', age=100)
    (tmp_path / 'last_checkpoint').write_bytes(content)
    assert newest_checkpoint(tmp_path) == str(newest)


def test_a_pointer_that_is_no_file(tmp_path):
    newest = save(tmp_path / 'epoch_3.pth')
    for make in (os.mkdir, os.mkfifo, lambda path: os.symlink('nowhere', path), lambda path: os.symlink(path, path)):
        make(tmp_path / 'last_checkpoint')
        assert newest_checkpoint(tmp_path) == str(newest)
        (tmp_path / 'last_checkpoint').rmdir() if make is os.mkdir else os.unlink(tmp_path / 'last_checkpoint')


@pytest.mark.parametrize('named', [True, False])
@pytest.mark.parametrize(
    'make',
    [
        os.mkdir,
        os.mkfifo,
        lambda path: os.symlink('nowhere.pth', path),
        lambda path: os.symlink(path.name, path),
        lambda path: os.symlink('/dev/zero', path),
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(b'\x80\x02}.'),
    ],
    ids=['folder', 'pipe', 'dangling link', 'link to itself', 'device', 'empty', 'another pickle'],
)
def test_what_is_named_like_a_checkpoint_and_is_none(make, named, tmp_path):
    sound = save(tmp_path / 'epoch_2.pth', age=100)
    make(tmp_path / 'epoch_3.pth')
    if named:
        (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    assert newest_checkpoint(tmp_path) == str(sound)


def test_a_link_to_a_checkpoint_is_one(tmp_path):
    save(tmp_path / 'elsewhere.pth')
    (tmp_path / 'run').mkdir()
    os.symlink('../elsewhere.pth', tmp_path / 'run' / 'epoch_3.pth')
    assert newest_checkpoint(tmp_path / 'run') == str(tmp_path / 'run' / 'epoch_3.pth')


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / 'file').write_text('')
    assert newest_checkpoint(tmp_path / 'nowhere') is None and newest_checkpoint(tmp_path / 'file') is None


def test_a_checkpoint_with_more_than_weights_is_passed_over_and_said_to_be_so(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr('mmlckd.checkpoints.newest.print_log', lambda text, *_: heard.append(text))
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict={}, meta=os.getcwd), path)
    with pytest.raises(ValueError, match='no sound checkpoint'):
        newest_checkpoint(tmp_path)
    assert len(heard) == 1 and 'is refused and was not run (posix.getcwd)' in heard[0]


def test_any_flipped_bit_in_the_last_one(tmp_path):
    """550 single bits: the file is read to the end and found sound, or the one before it is taken."""
    before, last = save(tmp_path / 'epoch_1.pth', age=100), save(tmp_path / 'epoch_2.pth')
    (tmp_path / 'last_checkpoint').write_text(str(last))
    content, chance = last.read_bytes(), random.Random(0)
    for _ in range(550):
        place, bit = chance.randrange(len(content)), chance.randrange(8)
        last.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        assert newest_checkpoint(tmp_path) in (str(before), str(last))
