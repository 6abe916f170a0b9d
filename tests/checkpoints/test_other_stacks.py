"""Files that other versions of torch and numpy wrote, by ``other_stack.py``, are read and resumed here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from checkpoints.other_stack import END, KEPT, TRAININGS, WRITTEN, train
from mmengine.logging import HistoryBuffer

from mmlckd.checkpoints import read_checkpoint

FILES = sorted(WRITTEN.glob('*.pth'))


def assert_alike(one, other, path='', rtol=1e-5):
    """The same keys, kinds, shapes and numbers; other versions may round sums otherwise."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one:
            assert_alike(one[key], other[key], f'{path}.{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for place, (left, right) in enumerate(zip(one, other)):
            assert_alike(left, right, f'{path}[{place}]')
    elif isinstance(one, HistoryBuffer):
        for left, right in zip(one.data, other.data):
            assert_alike(left, right, path)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.allclose(one, other, rtol=rtol, atol=1e-6), path
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and np.allclose(one, other, rtol=rtol), path
    elif isinstance(one, float):
        assert math.isclose(one, other, rel_tol=rtol), path
    else:
        assert one == other, path


def test_both_stacks_wrote():
    for name in TRAININGS:
        for numpy in ('numpy-1', 'numpy-2'):
            assert any(numpy in file.name and file.stem.endswith(name) for file in FILES)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Folder and runner of each training, here."""
    folders = {name: tmp_path_factory.mktemp(name) for name in TRAININGS}
    return {name: (folder, train(folder, name)) for name, folder in folders.items()}


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_what_is_read_is_what_would_be_written_here(file, trained):
    folder, _ = trained[file.stem.rpartition('_')[2]]
    theirs, ours = (read_checkpoint(path) for path in (file, folder / f'iter_{KEPT}.pth'))
    assert theirs.keys() == ours.keys()
    assert theirs['meta'].keys() == ours['meta'].keys()
    for name in ('state_dict', 'ema_state_dict', 'random_states', 'accumulated_gradients', 'place_in_epoch'):
        if name in ours:
            assert_alike(theirs[name], ours[name], name)
    for name, history in ours['message_hub']['log_scalars'].items():
        if 'time' not in name:
            assert_alike(theirs['message_hub']['log_scalars'][name], history, name)


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_a_resumed_training_ends_where_one_of_this_stack_does(file, trained, tmp_path):
    name = file.stem.rpartition('_')[2]
    _, whole = trained[name]
    resumed = train(tmp_path, name, resume=file)
    assert resumed.iter == END
    assert_alike(dict(resumed.model.state_dict()), dict(whole.model.state_dict()))
