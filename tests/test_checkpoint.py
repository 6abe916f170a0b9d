"""Reading checkpoints: OpenMMLab's load, those that would run code do not."""

import os
import pickle
from datetime import datetime

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from torch import nn

from mmlckd.checkpoint import load_weights, read_checkpoint


class Runs:
    """Unpickling this calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def save(content, path):
    torch.save(content, path)
    return str(path)


def test_a_training_checkpoint_of_mmengine_loads(tmp_path):
    hub = MessageHub.get_instance('checkpoint_test')
    hub.update_scalar('train/loss', 0.5)
    hub.update_info('history', [dict(iter=1, student=[0.5])])
    content = dict(state_dict=nn.Linear(2, 2).state_dict(), message_hub=hub.state_dict(), meta=dict(epoch=np.int64(1), seed=np.float64(2.)),
                   random_states=[dict(numpy=np.random.get_state())])
    loaded = read_checkpoint(save(content, tmp_path / 'c.pth'))
    assert loaded['message_hub']['log_scalars']['train/loss'].current() == 0.5
    assert loaded['meta'] == dict(epoch=1, seed=2.)


@pytest.mark.parametrize('attack', [
    lambda command: Runs(os.system, command),
    lambda command: Runs(getattr, HistoryBuffer, '__init__'),  # on the way to its __globals__
    lambda command: Runs(getattr, Runs(__import__, 'os'), 'system'),
    lambda command: Runs(eval, f'__import__("os").system({command!r})'),
], ids=['os.system', 'globals', 'import', 'eval'])
def test_content_that_would_run_is_refused_and_not_run(attack, tmp_path):
    canary = tmp_path / 'canary'
    path = save(dict(state_dict={}, meta=attack(f'touch {canary}')), tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match='evil.pth.*refused'):
        read_checkpoint(path)
    assert not canary.exists()


def test_the_refusal_names_what_was_found_and_not_how_to_run_it(tmp_path):
    path = save(dict(meta=datetime.now()), tmp_path / 'c.pth')
    with pytest.raises(ValueError, match='datetime') as error:
        read_checkpoint(path)
    assert 'weights_only' not in str(error.value)


@pytest.mark.parametrize('content', [b'', b'<html>404</html>', pickle.dumps([1, 2])[:5]])
def test_damaged_files(content, tmp_path):
    (tmp_path / 'bad.pth').write_bytes(content)
    with pytest.raises(ValueError, match='bad.pth'):
        read_checkpoint(str(tmp_path / 'bad.pth'))


def test_truncated_file(tmp_path):
    path = tmp_path / 'c.pth'
    save(nn.Linear(50, 50).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match='damaged'):
        read_checkpoint(str(path))


def test_missing_file_and_other_content(tmp_path):
    with pytest.raises(FileNotFoundError, match="'nowhere.pth' does not exist"):
        read_checkpoint('nowhere.pth')
    with pytest.raises(ValueError, match='holds a list'):
        read_checkpoint(save([1], tmp_path / 'list.pth'))


@pytest.mark.parametrize('wrap', [lambda state: state, lambda state: dict(state_dict=state),
                                  lambda state: {f'module.{key}': value for key, value in state.items()},
                                  lambda state: {**state, 'distiller.connectors.x.0.weight': torch.zeros(1)}])
def test_weights_in_their_usual_wrappings(wrap, tmp_path):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    load_weights(target, save(wrap(source.state_dict()), tmp_path / 'c.pth'))
    assert torch.equal(source.weight, target.weight)


@pytest.mark.parametrize('content', [dict(state_dict=[1]), dict(state_dict=None), {1: torch.zeros(1)}])
def test_content_that_is_no_weights(content, tmp_path):
    with pytest.raises(ValueError, match='holds no weights by name'):
        load_weights(nn.Linear(3, 2), save(content, tmp_path / 'c.pth'))


@pytest.mark.parametrize('change, message', [
    (lambda state: state.pop('bias'), 'Missing key.*bias'),
    (lambda state: state.update(extra=torch.zeros(1)), 'Unexpected key.*extra'),
    (lambda state: state.update(weight=torch.zeros(5, 3)), r'size mismatch for weight'),
])
def test_every_key_is_accounted_for(change, message, tmp_path):
    state = nn.Linear(3, 2).state_dict()
    change(state)
    with pytest.raises(ValueError, match=f'c.pth.*does not fit Linear.*{message}'):
        load_weights(nn.Linear(3, 2), save(state, tmp_path / 'c.pth'))
