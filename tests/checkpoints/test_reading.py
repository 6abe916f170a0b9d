"""Reading checkpoints: OpenMMLab's load, those that would run code do not."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import pickle
import re
import shutil
import threading
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader
from torch import nn

from mmlckd.checkpoints import install_safe_loader, load_weights, misfit, read_checkpoint

install_safe_loader()


class Runs:
    """Unpickling this calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def save(content, path):
    torch.save(content, path)
    return str(path)


def test_numpy_numbers_of_either_major_version_load(tmp_path):
    # numpy 2 writes numpy._core.multiarray.scalar where numpy 1 wrote numpy.core.multiarray.scalar
    path = tmp_path / 'c.pth'
    torch.save(dict(epoch=np.int64(3), history=np.arange(2.0)), path, _use_new_zipfile_serialization=False)
    for there, other in ((b'numpy._core.', b'numpy.core.'), (b'numpy.core.', b'numpy._core.')):
        path.write_bytes(path.read_bytes().replace(there, other))
        loaded = read_checkpoint(path)
        assert loaded['epoch'] == 3 and loaded['history'].tolist() == [0.0, 1.0]


def test_the_text_of_a_config_is_left_out(tmp_path):
    assert read_checkpoint(save(dict(meta=dict(config='import os', epoch=1)), tmp_path / 'c.pth')) == dict(
        meta=dict(epoch=1)
    )


def test_mmengine_reads_through_the_allow_list(tmp_path):
    path = save(dict(state_dict={}, meta=Runs(os.getcwd)), tmp_path / 'c.pth')
    for source in (
        path,
        f'file-{path}',
        's3://bucket/c.pth',
        'petrel://bucket/c.pth',
        'work:s3://bucket/c.pth',
        'pavi://c.pth',
    ):
        with pytest.raises((ValueError, FileNotFoundError), match='checkpoint'):
            CheckpointLoader.load_checkpoint(source, 'cpu')


@pytest.mark.parametrize(
    'name', ['torchvision://resnet18', 'modelzoo://resnet18', 'open-mmlab://vgg16_caffe', 'mmcls://resnet18']
)
def test_model_zoos_are_read_through_it_too(name, tmp_path, monkeypatch):
    path = save(dict(state_dict={}, meta=Runs(os.getcwd)), tmp_path / 'zoo.pth')
    monkeypatch.setattr('mmlckd.checkpoints.reading.download', lambda address: Path(path))
    with pytest.raises(ValueError, match="checkpoint 'https?://.*' holds more than weights"):
        CheckpointLoader.load_checkpoint(name, 'cpu')


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Address of a server on this machine that serves tmp_path/served; downloads go to a folder of their own."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / 'served')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_two_addresses_with_one_file_name(address, tmp_path):
    for name, value in (('a', 1.0), ('b', 2.0)):
        (tmp_path / 'served' / name).mkdir(parents=True)
        save(dict(value=value), tmp_path / 'served' / name / 'wrn-16.pth')  # -16 is no check sum
    read = {name: read_checkpoint(f'{address}/{name}/wrn-16.pth')['value'] for name in 'abab'}
    assert read == dict(a=1.0, b=2.0)
    for name in 'ab':
        (tmp_path / 'served' / name / 'wrn-16.pth').unlink()
    assert read_checkpoint(f'{address}/b/wrn-16.pth')['value'] == 2.0  # kept


def test_a_check_sum_in_the_name_is_compared(address, tmp_path):
    (tmp_path / 'served').mkdir()
    path = tmp_path / 'served' / 'c.pth'
    save(dict(value=1.0), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    for name in (digest, 'deadbeef'):
        shutil.copy(path, tmp_path / 'served' / f'c-{name}.pth')
    assert read_checkpoint(f'{address}/c-{digest}.pth')['value'] == 1.0
    assert (tmp_path / 'hub' / 'checkpoints' / f'c-{digest}.pth').is_file()  # where torch and MMEngine keep it
    with pytest.raises(ValueError, match='cannot be downloaded .*hash.*give its path'):
        read_checkpoint(f'{address}/c-deadbeef.pth')
    with pytest.raises(ValueError, match='cannot be downloaded .*404'):
        read_checkpoint(f'{address}/nothing.pth')


def test_a_training_checkpoint_of_mmengine_loads(tmp_path):
    hub = MessageHub.get_instance('checkpoint_test')
    hub.update_scalar('train/loss', 0.5)
    hub.update_info('history', [dict(iter=1, student=[0.5])])
    content = dict(
        state_dict=nn.Linear(2, 2).state_dict(),
        message_hub=hub.state_dict(),
        meta=dict(epoch=np.int64(1), seed=np.float64(2.0)),
        random_states=[dict(numpy=np.random.get_state())],
    )
    loaded = read_checkpoint(save(content, tmp_path / 'c.pth'))
    assert loaded['message_hub']['log_scalars']['train/loss'].current() == 0.5
    assert loaded['meta'] == dict(epoch=1, seed=2.0)


@pytest.mark.parametrize(
    'attack',
    [
        lambda command: Runs(os.system, command),
        lambda command: Runs(getattr, HistoryBuffer, '__init__'),  # on the way to its __globals__
        lambda command: Runs(getattr, Runs(__import__, 'os'), 'system'),
        lambda command: Runs(eval, f'__import__("os").system({command!r})'),
    ],
    ids=['os.system', 'globals', 'import', 'eval'],
)
def test_content_that_would_run_is_refused_and_not_run(attack, tmp_path):
    canary = tmp_path / 'canary'
    path = save(dict(state_dict={}, meta=attack(f'touch {canary}')), tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match='evil.pth.*is refused and was not run'):
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


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: state,
        lambda state: dict(state_dict=state),
        lambda state: {f'module.{key}': value for key, value in state.items()},
        lambda state: {**state, 'distiller.connectors.x.0.weight': torch.zeros(1)},
    ],
)
def test_weights_in_their_usual_wrappings(wrap, tmp_path):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    load_weights(target, save(wrap(source.state_dict()), tmp_path / 'c.pth'))
    assert torch.equal(source.weight, target.weight)


@pytest.mark.parametrize('content', [dict(state_dict=[1]), dict(state_dict=None), {1: torch.zeros(1)}])
def test_content_that_is_no_weights(content, tmp_path):
    with pytest.raises(ValueError, match='holds no weights by name'):
        load_weights(nn.Linear(3, 2), save(content, tmp_path / 'c.pth'))


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda state: state.update(weight=torch.zeros(2, 5)), r'1 of another shape \(weight \(2, 5\) for \(2, 3\)\)'),
        (lambda state: state.pop('bias'), r'1 missing \(bias\)'),
        (lambda state: state.update(extra=torch.zeros(1)), r'1 unknown \(extra\)'),
        (
            lambda state: state.update(weight=torch.zeros(5, 3)),
            r'1 of another shape \(weight \(5, 3\) for \(2, 3\)\): take a checkpoint of this network',
        ),
    ],
)
def test_every_key_is_accounted_for(change, message, tmp_path):
    state = nn.Linear(3, 2).state_dict()
    change(state)
    with pytest.raises(ValueError, match=f'c.pth.*does not fit Linear.*{message}'):
        load_weights(nn.Linear(3, 2), save(state, tmp_path / 'c.pth'))


@pytest.mark.parametrize(
    'names, change, message',
    [
        (
            ['head.fc.weight', 'head.fc.bias'],
            1,
            r'head.fc.weight is \(3, 2\) in the file and \(2, 2\) .* numbers of classes',
        ),
        (['roi_head.bbox_head.fc_cls.bias'], 1, r'roi_head.bbox_head.fc_cls.bias is \(3,\) .* numbers of classes'),
        (
            ['backbone.conv1.bias'],
            1,
            r'its keys do not match, 1 of another shape \(backbone.conv1.bias \(3,\) for \(2,\)\)',
        ),
        (
            ['distiller.connectors.a.0.weight', 'distiller.connectors.a.1.bias'],
            1,
            r'the connectors to the teacher do not match, 2 of another shape '
            r'\(distiller.connectors.a.0.weight \(3, 2\) for '
            r'\(2, 2\), .*\): give the teacher, taps and losses that the file was trained with',
        ),
        (['distiller.connectors.a.0.weight'], None, 'the connectors to the teacher do not match, 1 missing'),
        (['head.fc.bias', 'distiller.connectors.a.0.weight'], 1, 'its keys do not match, 2 of another shape'),
    ],
)
def test_what_differs_is_named_and_only_a_heads_first_dimension_counts_classes(names, change, message):
    expected = {name: torch.zeros(2, 2) if name.endswith('weight') else torch.zeros(2) for name in names}
    weights = {name: torch.zeros(2 + change, *value.shape[1:]) for name, value in expected.items()} if change else {}
    assert re.match(message, misfit(expected, weights))
    assert misfit(expected, expected) is None
