"""What is the user's to mend gets a sentence; bugs keep their traceback."""

from __future__ import annotations

import re
import runpy
from types import SimpleNamespace

import pytest
import torch
from conftest import GUIDED, run
from mmengine.registry import HOOKS as RUNNER_HOOKS
from mmengine.registry import MODELS as RUNNER_MODELS
from mmengine.registry import OPTIMIZERS, DefaultScope
from mmengine.runner import Runner
from mmengine.utils import digit_version

from mmlckd.cli import errors, sentence_of
from mmlckd.config import read_config
from mmlckd.functional import transmitting_norm
from mmlckd.losses import LipschitzKDLoss
from mmlckd.registry import MODELS


def error_of(function, *args, **kwargs):
    with pytest.raises(Exception) as caught:
        function(*args, **kwargs)
    return caught.value


def raising(error):
    raise error


@pytest.mark.parametrize(
    'function, args',
    [
        (raising, (ValueError('raised by code that is none of ours'),)),
        (raising, (KeyError('epoch'),)),
        (transmitting_norm, ('feat', 'feat')),  # an attribute error inside this package
        (
            OPTIMIZERS.build,
            (dict(type='SGD', lr='high', params=[torch.zeros(1)]),),
        ),  # a type error inside what is built
        (digit_version, (3,)),  # one inside MMEngine, in an assertion
    ],
)
def test_bugs(function, args):
    assert sentence_of(error_of(function, *args)) is None


@pytest.mark.parametrize(
    'module, body, sentence',
    [
        (
            'mmpretrain/models/multimodal/blip',
            'class Pooler(None): pass',  # as with transformers 5, whose names mmpretrain replaces by None
            r"mmpretrain does not import here, TypeError in .*/blip\.py: .*: run `pip install 'transformers<5'`, or",
        ),
        (
            'mmdet/registry',
            'import no_such_package',
            'mmdet does not import here, ModuleNotFoundError in ',
        ),
        (
            'mmseg/parts',
            'import numpy\nnumpy.no_such_name',
            'mmseg does not import here, AttributeError in .*: .*: correct',
        ),
    ],
)
def test_a_host_that_does_not_import(tmp_path, monkeypatch, module, body, sentence):
    path = tmp_path / f'{module}.py'
    path.parent.mkdir(parents=True)
    path.write_text(body)
    error = error_of(runpy.run_path, str(path))
    assert sentence_of(error) is None  # a folder of the user's that has a host's name
    monkeypatch.setattr(errors, 'find_spec', lambda host: SimpleNamespace(origin=str(tmp_path / host / '__init__.py')))
    assert re.match(sentence, sentence_of(error))


@pytest.mark.parametrize(
    'function, args, kwargs, sentence',
    [
        (LipschitzKDLoss, (), dict(distance='l2'), "distance is 'l2': choose one of"),
        (read_config, ('nowhere.py',), {}, "config 'nowhere.py' does not exist"),
        (
            MODELS.build,
            (dict(type='mmlckd.LogitKDLoss'),),
            {},
            "type 'mmlckd.LogitKDLoss' is not known: the closest are 'mmlckd.LogitsKDLoss'",
        ),
        (
            MODELS.build,
            (dict(type='mmlckd.LogitsKDLoss', weight=3),),
            {},
            "mmlckd.LogitsKDLoss has no field 'weight': the closest are 'loss_weight'",
        ),
        (MODELS.build, (dict(type='mmlckd.WideResNet'),), {}, "mmlckd.WideResNet lacks the field 'depth': add it"),
        (
            MODELS.build,  # what is built by __new__
            (dict(type='mmlckd.LipschitzDistiller', tap=['a']),),
            {},
            "mmlckd.LipschitzDistiller has no field 'tap': the closest are 'taps'",
        ),
        (
            MODELS.build,
            (dict(type='mmlckd.LipschitzDistiller', student=dict(type='A')),),
            {},
            "mmlckd.LipschitzDistiller lacks the field 'teacher'",
        ),
        (
            MODELS.build,  # a class in place of a name
            (dict(type=LipschitzKDLoss, iters=3),),
            {},
            "LipschitzKDLoss has no field 'iters': the closest are 'num_iters'",
        ),
        (MODELS.build, (dict(type='nosuch.Loss'),), {}, "type 'nosuch.Loss' is not known: "),
        (
            OPTIMIZERS.build,
            (dict(type='SGD', lr=-1, params=[torch.zeros(1)]),),
            {},
            'SGD cannot be made: Invalid learning rate: -1',
        ),
        (Runner, (dict(type='X'), '/proc/work'), {}, "No such file or directory: '/proc/work': correct the path"),
        (open, ('/nowhere/a.txt',), {}, "No such file or directory: '/nowhere/a.txt': correct the path"),
    ],
)
def test_sentences(function, args, kwargs, sentence):
    assert sentence_of(error_of(function, *args, **kwargs)).startswith(sentence)


@pytest.mark.parametrize(
    'registry, scope, kind, sentence',
    [
        (RUNNER_HOOKS, 'mmpretrain', 'SpectralNormHook', "write 'mmlckd.SpectralNormHook'"),
        (RUNNER_HOOKS, 'mmdet', 'mmdet.SpectralNormHook', "write 'mmlckd.SpectralNormHook'"),
        (RUNNER_HOOKS, 'mmpretrain', 'SpectralNormHok', "the closest are 'mmlckd.SpectralNormHook'"),
        (RUNNER_HOOKS, 'mmpretrain', 'ChekpointHook', "the closest are 'CheckpointHook'"),
        (RUNNER_MODELS, 'mmpretrain', 'LipschitzDistiller', "write 'mmlckd.LipschitzDistiller'"),
        (RUNNER_MODELS, 'mmseg', 'OFDLoss', "write 'mmlckd.OFDLoss'"),
        (RUNNER_MODELS, 'mmdet', 'mmlckd.LipschitzKDLos', "the closest are 'mmlckd.LipschitzKDLoss'"),
        (RUNNER_MODELS, 'mmpretrain', 'EncoderDecoder', "write 'mmseg.EncoderDecoder'"),
        (RUNNER_MODELS, 'mmseg', 'ImageClassifer', "the closest are 'mmpretrain.ImageClassifier'"),
    ],
)
def test_names_of_sibling_registries_come_with_their_scope(registry, scope, kind, sentence):
    for host in ('mmpretrain', 'mmdet', 'mmseg'):
        __import__(f'{host}.registry')
    with DefaultScope.overwrite_default_scope(scope):
        assert sentence in sentence_of(error_of(registry.build, dict(type=kind)))


def test_an_error_behind_the_one_that_mmengine_raises():
    try:
        try:
            LipschitzKDLoss(num_iters=0)
        except ValueError as error:
            raise RuntimeError('class `LipschitzKDLoss` in mmlckd/losses') from error
    except RuntimeError as error:
        assert sentence_of(error) == 'num_iters is 0: at least 1 is needed'


def test_a_bug_behind_an_error_that_was_dealt_with():
    try:
        try:
            LipschitzKDLoss(num_iters=0)
        except ValueError:
            {}['bug']
    except KeyError as error:
        assert sentence_of(error) is None


def test_debug_shows_the_traceback(tmp_path):
    result = run(
        'tools/train.py',
        GUIDED,
        '--debug',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        'train_dataloader.dataset.data_root=nowhere',
    )
    assert result.returncode == 1 and 'Traceback' in result.stderr and 'which does not exist' in result.stderr
