"""What is the user's to mend gets a sentence; bugs keep their traceback."""

from __future__ import annotations

import pytest
import torch
from conftest import GUIDED, run
from mmengine.registry import OPTIMIZERS
from mmengine.runner import Runner
from mmengine.utils import digit_version

from mmlckd.cli import sentence_of
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
        (MODELS.build, (dict(type='mmlckd.LogitsKDLoss', tau='warm'),)),  # a type error inside a class that is built
        (digit_version, (3,)),  # one inside MMEngine, in an assertion
    ],
)
def test_bugs(function, args):
    assert sentence_of(error_of(function, *args)) is None


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
