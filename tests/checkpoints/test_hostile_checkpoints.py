"""Checkpoints that would run code when they are read: refused by every tool, by whichever way they come, and not
run.
"""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from conftest import ALONE, GUIDED, on_mnist, run
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import load_from_local

from mmlckd.checkpoints import read_checkpoint


class Runs:
    """Unpickling this calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def system(command, path, content):
    """A call of os.system beside the weights, as pickle writes it."""
    torch.save({**content, 'extra': Runs(os.system, command)}, path)


def attributes(command, path, content):
    """Steps through getattr alone, from getattr itself to eval, which becomes an allowed object's way of taking its
    state.
    """

    def text(string):
        return pickle.BINUNICODE + len(string).to_bytes(4, 'little') + string.encode()

    def look_up(owner, name):
        return b'cbuiltins\ngetattr\n' + owner + text(name) + pickle.TUPLE2 + pickle.REDUCE

    evaluate = look_up(look_up(b'cbuiltins\ngetattr\n', '__self__'), 'eval')
    history = b'cmmengine.logging.history_buffer\nHistoryBuffer\n' + pickle.EMPTY_TUPLE + pickle.NEWOBJ
    steps = [
        pickle.PROTO + b'\x02',
        history,
        pickle.EMPTY_DICT,
        text('__setstate__'),
        evaluate,
        pickle.SETITEM,
        pickle.BUILD,
        text(f'__import__("os").system({command!r})'),
        pickle.BUILD,
        pickle.STOP,
    ]
    header = [
        pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, dict(little_endian=True))
    ]  # torch's older format
    path.write_bytes(b''.join([*header, *steps, pickle.dumps([], 2)]))


def config_text(command, path, content):
    """The text of a config, harmless to read, which MMEngine runs when it resumes."""
    torch.save({**content, 'meta': {**content['meta'], 'config': f'__import__("os").system({command!r})\n'}}, path)


@pytest.fixture
def canary(tmp_path):
    return tmp_path / 'canary'


@pytest.fixture
def write(trained_alone, teacher, canary, tmp_path):
    """Write a checkpoint, sound but for the attack."""

    def write(attack, name):
        content = torch.load(teacher) if name == 'teacher' else read_checkpoint(trained_alone)
        path = tmp_path / f'{name}.pth'
        attack(f'touch {canary}', path, content)
        return path

    return write


@pytest.mark.parametrize('attack', [system, attributes])
def test_these_attacks_work_on_mmengines_own_loader(attack, write, canary):
    load_from_local(str(write(attack, 'alone')), 'cpu')
    assert canary.exists()


def test_the_second_gets_through_an_allow_list_with_getattr(write, canary):
    path = write(attributes, 'alone')
    if not hasattr(torch.serialization, 'safe_globals'):
        pytest.skip('torch before 2.5 has no allow-list')
    with torch.serialization.safe_globals([HistoryBuffer, getattr]):
        torch.load(path, weights_only=True)
    assert canary.exists()


def test_the_third_works_on_what_mmengines_resume_does(write, canary):
    content = torch.load(write(config_text, 'alone'), weights_only=False)
    Config.fromstring(content['meta']['config'], file_format='.py')
    assert canary.exists()


WAYS = {
    'teacher': lambda path, work, options: [
        'tools/train.py',
        GUIDED,
        *work,
        *options,
        f'model.teacher.checkpoint={path}',
    ],
    'load_from': lambda path, work, options: ['tools/train.py', ALONE, *work, *options, f'load_from={path}'],
    'resume': lambda path, work, options: ['tools/train.py', ALONE, '--resume', path, *work, *options],
    'init_cfg': lambda path, work, options: [
        'tools/train.py',
        ALONE,
        *work,
        *options,
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={path}',
    ],
    'test': lambda path, work, options: ['tools/test.py', ALONE, path, *work, *options],
    'analyze': lambda path, work, options: [
        'tools/analyze_lipschitz.py',
        ALONE,
        path,
        '--images',
        '1',
        '--out',
        work[1],
        *options,
    ],
    'export': lambda path, work, options: ['tools/export_student.py', path, f'{work[1]}/student.pth'],
}


@pytest.mark.parametrize(
    'way, attack',
    [
        *((way, attack) for way in ('teacher', 'load_from', 'resume') for attack in (system, attributes)),
        *((way, system) for way in list(WAYS)[3:]),
    ],
)
def test_refused_and_not_run(way, attack, write, canary, mnist, tmp_path):
    path = write(attack, 'teacher' if way == 'teacher' else 'alone')
    command = WAYS[way](
        path, ['--work-dir', tmp_path / 'run'], ['--cfg-options', *on_mnist(mnist), 'train_cfg.max_epochs=2']
    )
    result = run(*command)
    assert not canary.exists()
    assert result.returncode == 1 and 'Traceback' not in result.stderr, result.stderr
    assert (
        result.stderr.strip()
        .splitlines()[-1]
        .startswith(f"error: checkpoint '{path}' holds more than weights, is refused and was not run (")
    )
    assert not list(tmp_path.glob('run/**/*.pth'))


def test_resume_does_not_run_a_checkpoints_config(write, canary, mnist, tmp_path):
    path = write(config_text, 'alone')
    result = run(
        'tools/train.py',
        ALONE,
        '--resume',
        path,
        '--work-dir',
        tmp_path / 'run',
        '--cfg-options',
        *on_mnist(mnist),
        'train_cfg.max_epochs=2',
    )
    assert result.returncode == 0, result.stderr[-3000:]  # it is a sound checkpoint otherwise
    assert not canary.exists() and (tmp_path / 'run' / 'epoch_2.pth').is_file()


@pytest.mark.parametrize('way', ['resume', 'test', 'export'])
def test_the_users_trust_is_explicit(way, write, canary, mnist, tmp_path):
    path = write(system, 'alone')
    command = WAYS[way](
        path, ['--work-dir', tmp_path / 'run'], ['--cfg-options', *on_mnist(mnist), 'train_cfg.max_epochs=2']
    )
    result = run(*command, '--trust-checkpoints')
    assert result.returncode == 0, result.stderr[-3000:]
    assert canary.exists()


def test_a_teacher_that_is_trusted(write, canary, mnist, tmp_path):
    path = write(system, 'teacher')
    result = run(
        'tools/train.py',
        GUIDED,
        '--trust-checkpoints',
        '--work-dir',
        tmp_path / 'run',
        '--cfg-options',
        *on_mnist(mnist),
        f'model.teacher.checkpoint={path}',
        'train_cfg.max_epochs=1',
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert canary.exists()
