"""Values of a wrong type, in every field of this package's: one sentence that names the field and shows the right
form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, Union

import pytest
from conftest import LONDON
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmlckd.cli import sentence_of
from mmlckd.config import bare_model, read_config
from mmlckd.registry import HOOKS, MODELS, OPTIM_WRAPPERS
from mmlckd.validation import check_distiller, check_run, checked
from mmlckd.validation.arguments import form_of
from mmlckd.validation.forms import ANYTHING

# Field of the guided demo's distiller, a wrong value, what the sentence says after the field.
DISTILLER = [
    ('student', None, 'is None: give LipschitzDistiller a dict or a built module, such as {{_base_.model}}'),
    ('student', 'mnist5k_wrn10-1', "is 'mnist5k_wrn10-1': give LipschitzDistiller a dict or a built module"),
    ('student', [dict(type='ImageClassifier')], "is [{'type': 'ImageClassifier'}]: give LipschitzDistiller a dict"),
    ('teacher', 3, 'is 3: give LipschitzDistiller a string, a dict'),
    ('teacher', 2.5, 'is 2.5: give LipschitzDistiller a string, a dict'),
    ('teacher', True, 'is True: give LipschitzDistiller a string, a dict'),
    ('teacher', ['a.py', 'a.pth'], "is ['a.py', 'a.pth']: give LipschitzDistiller a string, a dict"),
    ('teacher', nn.Linear, 'is the class Linear: give LipschitzDistiller a string, a dict'),
    ('teacher.model', 'wrn', "is 'wrn': give a dict or a built module, such as dict(type='ImageClassifier', ...)"),
    ('teachers', ['a.py'], "is ['a.py']: give LipschitzDistiller a dict"),
    ('teachers.second', 3, 'is 3: give a string, a dict or a built module, such as dict(config='),
    ('teachers.second.checkpoint', 3, 'is 3: give a string or None'),
    ('losses.kd.teacher', 1, 'is 1: give a string or None'),
    ('teacher.config', None, "is None: give a string, such as 'configs/teachers/"),
    ('teacher.config', dict(type='X'), "is {'type': 'X'}: give a string"),
    ('teacher.checkpoint', True, "is True: give a string or None, such as 'work_dirs/teacher/epoch_100.pth'"),
    ('teacher.checkpoint', ['a.pth'], "is ['a.pth']: give a string or None"),
    ('teacher.norm_stats', None, "is None: give a string, such as 'running'"),
    ('teacher.norm_stats', {}, 'is {}: give a string'),
    ('teacher.precision', 16, "is 16: give a string or None, such as 'bf16'"),
    ('losses', 3, 'is 3: give LipschitzDistiller a dict of dicts or None'),
    (
        'losses',
        [dict(type='mmlckd.LogitsKDLoss')],
        "is [{'type': 'mmlckd.LogitsKDLoss'}]: give LipschitzDistiller a dict",
    ),
    ('losses', 'mmlckd.LipschitzKDLoss', "is 'mmlckd.LipschitzKDLoss': give LipschitzDistiller a dict of dicts"),
    ('losses.kd', 'mmlckd.LogitsKDLoss', "is 'mmlckd.LogitsKDLoss': give a dict or None"),
    ('losses.kd', False, 'is False: give a dict or None'),
    ('losses.kd.type', 3, 'is 3: give a name or a class'),
    ('losses.kd.taps', 5, "is 5: give a list of strings, dicts or Taps, a string, a dict or None, such as ['backbone."),
    ('losses.kd.tau', 'warm', "is 'warm': give LogitsKDLoss a number, such as 4.0"),
    ('losses.kd.tau', None, 'is None: give LogitsKDLoss a number'),
    ('losses.kd.tau', [4.0], 'is [4.0]: give LogitsKDLoss a number'),
    ('losses.kd.loss_weight', None, 'is None: give LogitsKDLoss a number, such as 1.0'),
    ('losses.kd.loss_weight', True, 'is True: give LogitsKDLoss a number'),
    ('losses.kd.loss_weight', {}, 'is {}: give LogitsKDLoss a number'),
    ('losses.ofd.connectors', 'conv', "is 'conv': give True or False"),
    ('losses.ofd.connectors', 1, 'is 1: give True or False'),
    ('losses.ofd.connectors', None, 'is None: give True or False'),
    ('losses.ofd.max_share', 'half', "is 'half': give a number or None, such as 0.5"),
    ('losses.ofd.max_share', [0.5], 'is [0.5]: give a number or None'),
    ('losses.ofd.map_weights', 3, "is 3: give OFDLoss a string or a list of numbers, such as 'geometric'"),
    ('losses.ofd.margins_from', 'bn', "is 'bn': give OFDLoss a list of strings or None"),
    ('losses.lipschitz.distance', None, "is None: give LipschitzKDLoss a string, such as 'log'"),
    ('losses.lipschitz.center', 'yes', "is 'yes': give LipschitzKDLoss True, False or None"),
    ('losses.lipschitz.pair_weights', None, 'is None: give LipschitzKDLoss a string or a list of numbers'),
    ('losses.lipschitz.pair_weights', 2, 'is 2: give LipschitzKDLoss a string or a list of numbers'),
    ('losses.lipschitz.num_iters', 2.5, 'is 2.5: give LipschitzKDLoss a whole number, such as 10'),
    ('losses.lipschitz.num_iters', None, 'is None: give LipschitzKDLoss a whole number'),
    ('losses.lipschitz.eps', 'small', "is 'small': give LipschitzKDLoss a number, such as 1e-12"),
    ('taps', 3, 'is 3: give LipschitzDistiller a string, a list, a dict or None, such as ['),
    ('taps', nn.Linear, 'is the class Linear: give LipschitzDistiller a string'),
    ('input_shape', 28, 'is 28: give LipschitzDistiller a list of whole numbers or None, such as (3, 224, 224)'),
    ('input_shape', '3,28,28', "is '3,28,28': give LipschitzDistiller a list of whole numbers or None"),
    ('input_shape', dict(h=28), "is {'h': 28}: give LipschitzDistiller a list of whole numbers or None"),
    ('data_preprocessor', 'ClsDataPreprocessor', "is 'ClsDataPreprocessor': give LipschitzDistiller a dict or None"),
]

# Taps, the part that is wrong, what the sentence says after it.
TAPS = [
    ([3], 'taps[0]', 'is 3: give a string, a dict or a Tap, such as dict(module='),
    (['backbone.bn', None], 'taps[1]', 'is None: give a string, a dict or a Tap'),
    ([['backbone.bn']], 'taps[0]', "is ['backbone.bn']: give a string, a dict or a Tap"),
    ([dict(module=None)], 'taps[0].module', "is None: give a string, such as 'backbone.layer1'"),
    ([dict(module='a', io=1)], 'taps[0].io', "is 1: give a string, such as 'output'"),
    ([dict(module='a', call='last')], 'taps[0].call', "is 'last': give a whole number or 'all', such as -1"),
    ([dict(module='a', call=None)], 'taps[0].call', 'is None: give a whole number'),
    ([dict(module='a', index='first')], 'taps[0].index', "is 'first': give a whole number or None, such as 0"),
    ([dict(module='a', grid=14)], 'taps[0].grid', "is 14: give a list of 2 whole numbers, 'auto' or None, such as "),
    ([dict(module='a', grid='14x14')], 'taps[0].grid', "is '14x14': give a list of 2 whole numbers, 'auto' or None"),
    ([dict(module='a', grid=(14, 14, 1))], 'taps[0].grid', 'is (14, 14, 1): give a list of 2 whole numbers, '),
    (
        dict(student=3, teacher=['a']),
        'taps.student',
        'is 3: give a list of strings, dicts or Taps or a string, such as [',
    ),
    (dict(student=['a'], teacher=[None]), 'taps.teacher[0]', 'is None: give a string, a dict or a Tap'),
]

# Registry, class, a wrong argument, what the sentence says after the field.
ARGUMENTS = [
    (HOOKS, 'SpectralNormHook', dict(interval='often'), "is 'often': give SpectralNormHook a whole number, such as 50"),
    (HOOKS, 'SpectralNormHook', dict(interval=None), 'is None: give SpectralNormHook a whole number'),
    (
        HOOKS,
        'SpectralNormHook',
        dict(layers=3),
        'is 3: give SpectralNormHook a string, a list of strings or None, such as',
    ),
    (HOOKS, 'SpectralNormHook', dict(layers={}), 'is {}: give SpectralNormHook a string, a list of strings or None'),
    (HOOKS, 'SpectralNormHook', dict(num_iters='2'), "is '2': give SpectralNormHook a whole number"),
    (HOOKS, 'SpectralNormHook', dict(fold_norms='yes'), "is 'yes': give SpectralNormHook True or False"),
    (
        HOOKS,
        'SpectralNormHook',
        dict(max_norm='1', layers='a'),
        "is '1': give SpectralNormHook a number or None, such as 1.0",
    ),
    (HOOKS, 'LossWeightHook', dict(loss=None, milestones=[1], weights=[0.0]), 'is None: give LossWeightHook a string'),
    (
        HOOKS,
        'LossWeightHook',
        dict(milestones=3, loss='kd', weights=[0.0]),
        'is 3: give LossWeightHook a list of whole numbers',
    ),
    (
        HOOKS,
        'LossWeightHook',
        dict(weights=0.5, loss='kd', milestones=[3]),
        'is 0.5: give LossWeightHook a list of numbers',
    ),
    (
        HOOKS,
        'LossWeightHook',
        dict(by_epoch='no', loss='kd', milestones=[3], weights=[0.0]),
        "is 'no': give LossWeightHook True or False",
    ),
    (
        HOOKS,
        'MomentumRestartHook',
        dict(epochs=100),
        'is 100: give MomentumRestartHook a list of whole numbers, such as [100, 150]',
    ),
    (HOOKS, 'MomentumRestartHook', dict(epochs=None), 'is None: give MomentumRestartHook a list of whole numbers'),
    (HOOKS, 'ConnectorWarmupHook', dict(iters='661'), "is '661': give ConnectorWarmupHook a whole number, such as 500"),
    (HOOKS, 'ConnectorWarmupHook', dict(iters=None), 'is None: give ConnectorWarmupHook a whole number'),
    (HOOKS, 'FiniteLossHook', dict(patience=[50]), 'is [50]: give FiniteLossHook a whole number, such as 50'),
    (HOOKS, 'FiniteLossHook', dict(interval=2.5), 'is 2.5: give FiniteLossHook a whole number'),
    (MODELS, 'WideResNet', dict(depth='16'), "is '16': give WideResNet a whole number, such as 16"),
    (MODELS, 'PyramidNet', dict(alpha=None, depth=110), 'is None: give PyramidNet a number, such as 84'),
    (MODELS, 'CifarResNet', dict(depth=[56]), 'is [56]: give CifarResNet a whole number'),
    (MODELS, 'FSPLoss', dict(loss_weight='1'), "is '1': give FSPLoss a number"),  # an argument that it inherits
    (MODELS, 'AttentionTransferLoss', dict(loss_weight=None), 'is None: give AttentionTransferLoss a number'),
    (
        OPTIM_WRAPPERS,
        'CpuAmpOptimWrapper',
        dict(modules='backbone'),
        "is 'backbone': give CpuAmpOptimWrapper a list of strings",
    ),
]

# Field of a run, a wrong value, what the sentence says after the field.
RUN = [
    ('model', [dict(type='X')], "is [{'type': 'X'}]: give a dict"),
    (
        'default_scope',
        3,
        "is 3: give the name of an installed package or None, such as 'mmdet', 'mmseg' or 'mmpretrain'",
    ),
    ('default_scope', 'mmclassification', "is 'mmclassification': give the name of an installed package or None"),
    ('work_dir', 3, "is 3: give a string or None, such as 'work_dirs/mine'"),
    ('work_dir', ['runs'], "is ['runs']: give a string or None"),
    ('load_from', dict(checkpoint='a.pth'), "is {'checkpoint': 'a.pth'}: give a string or None"),
    ('resume', 'auto', "is 'auto': give True or False"),
    ('randomness', 3, 'is 3: give a dict, such as dict(seed=0)'),
    ('randomness.seed', 'zero', "is 'zero': give a whole number or None, such as 0"),
    ('randomness.seed', 1.5, 'is 1.5: give a whole number or None'),
    ('randomness.deterministic', 'yes', "is 'yes': give True or False"),
    ('optim_wrapper', 'SGD', "is 'SGD': give a dict or None, such as dict(optimizer=dict(type='SGD', lr=0.1))"),
    ('optim_wrapper.optimizer', 'SGD', "is 'SGD': give a dict, such as dict(type='SGD', lr=0.1)"),
    ('optim_wrapper.optimizer.lr', '0.1', "is '0.1': give a number, such as 0.1"),
    ('optim_wrapper.optimizer.lr', None, 'is None: give a number'),
    ('optim_wrapper.optimizer.lr', [0.1, 0.01], 'is [0.1, 0.01]: give a number'),
    ('optim_wrapper.optimizer.momentum', '0.9', "is '0.9': give a number"),
    ('optim_wrapper.accumulative_counts', 2.0, 'is 2.0: give a whole number'),
    ('optim_wrapper.clip_grad', 35, 'is 35: give a dict or None, such as dict(max_norm=35)'),
    ('param_scheduler', 'cosine', "is 'cosine': give a dict, a list of dicts or None"),
    ('param_scheduler', ['cosine'], None),
    (
        'default_hooks',
        [dict(type='CheckpointHook')],
        "is [{'type': 'CheckpointHook'}]: give a dict of dicts, hooks or None",
    ),
    (
        'default_hooks.checkpoint',
        'CheckpointHook',
        "is 'CheckpointHook': give a dict, a hook or None, such as dict(type=",
    ),
    ('default_hooks.spectral_norm', False, 'is False: give a dict, a hook or None'),
    ('custom_hooks', dict(type='EMAHook'), "is {'type': 'EMAHook'}: give a list of dicts or hooks or None"),
    ('custom_hooks', [None], None),
    ('custom_hooks', ['EMAHook'], None),
    ('train_cfg', 100, 'is 100: give a dict or None, such as dict(by_epoch=True, max_epochs=100)'),
    ('train_cfg.max_epochs', '100', "is '100': give a whole number or None, such as 100"),
    ('train_cfg.val_interval', None, 'is None: give a whole number'),
    ('train_dataloader', 'data/mnist5k', "is 'data/mnist5k': give a dict or None"),
    ('train_dataloader.dataset', 'CustomDataset', "is 'CustomDataset': give a dict"),
    ('train_dataloader.batch_size', '32', "is '32': give a whole number, such as 16"),
    ('train_dataloader.num_workers', None, 'is None: give a whole number'),
    ('val_evaluator', 'Accuracy', "is 'Accuracy': give a dict, a list or None"),
    ('auto_scale_lr', True, 'is True: give a dict or None, such as dict(base_batch_size=256)'),
    ('find_unused_parameters', 'True', "is 'True': give True or False"),
    ('model_wrapper_cfg', 'MMDistributedDataParallel', "is 'MMDistributedDataParallel': give a dict or None"),
    ('prerequisites', ['data'], "is ['data']: give a dict of strings"),
    ('prerequisites', dict(data=3), None),
]


def test_there_are_many():
    assert len(DISTILLER) + len(TAPS) + len(ARGUMENTS) + len(RUN) >= 70


@pytest.fixture(scope='module')
def guided():
    __import__('mmpretrain.models')
    init_default_scope('mmpretrain')
    return read_config(LONDON)


def wrong(config, field, value):
    """The config with one value changed; what is on the way to it stays."""
    config = Config(config.to_dict())
    *path, name = field.split('.')
    place = config
    for step in path:
        if place.get(step) is None:
            place[step] = {}
        place = place[step]
    place[name] = value
    return config


def said(call, *args, **kwargs):
    with pytest.raises(ValueError) as caught:
        call(*args, **kwargs)
    sentence = str(caught.value)
    assert '\n' not in sentence and sentence_of(caught.value) == sentence
    return sentence


@pytest.mark.parametrize('field, value, sentence', DISTILLER)
def test_the_distiller(field, value, sentence, guided):
    init_default_scope('mmpretrain')
    model = wrong(guided, f'model.{field}', value).model
    model.setdefault('data_preprocessor', guided.data_preprocessor)
    assert said(MODELS.build, model).startswith(f'{field} {sentence}')  # as the stock tools build it


@pytest.mark.parametrize('taps, part, sentence', TAPS)
def test_taps(taps, part, sentence, guided):
    assert said(MODELS.build, dict(guided.model, taps=taps)).startswith(f'{part} {sentence}')
    losses = dict(guided.model.losses, kd=dict(guided.model.losses.kd, taps=taps))
    of_entry = said(MODELS.build, dict(guided.model, losses=losses))
    assert of_entry.startswith(f'losses.kd.{part} {sentence}')


@pytest.mark.parametrize('registry, kind, arguments, sentence', ARGUMENTS)
def test_arguments(registry, kind, arguments, sentence):
    assert said(registry.build, dict(type=f'mmlckd.{kind}', **arguments)).startswith(
        f'{next(iter(arguments))} {sentence}'
    )


@pytest.mark.parametrize('field, value, sentence', RUN)
def test_a_run(field, value, sentence, guided):
    found = said(check_run, wrong(guided, field, value))
    parts = {'param_scheduler': '[0] is ', 'custom_hooks': '[0] is ', 'prerequisites': '.data is 3: give a string'}
    assert found.startswith(f'{field}{parts[field]}' if sentence is None else f'{field} {sentence}')


@pytest.mark.parametrize('field, value', [case[:2] for case in DISTILLER if case[0].count('.') < 2])
def test_the_tools_say_it_before_anything_is_built(field, value, guided):
    if field == 'data_preprocessor':
        return
    assert said(check_distiller, wrong(guided, f'model.{field}', value).model).startswith(f'model.{field} is ')


def test_right_values_pass(guided):
    check_run(guided)
    check_distiller(guided.model)
    check_run(Config(dict(default_scope=None, work_dir=None, custom_hooks=None, param_scheduler=None, val_cfg=None)))
    HOOKS.build(
        dict(type='mmlckd.LossWeightHook', loss='kd', milestones=(1,), weights=(0,))
    )  # a whole number is a number


def test_a_built_student_passes(guided):
    init_default_scope('mmpretrain')
    student = MODELS.build(bare_model(guided))
    assert MODELS.build(dict(guided.model, student=student)) is student


@pytest.mark.parametrize(
    'value, taken', [(None, True), (3, True), ([1, 2], True), ('3', False), ([1, 'a'], False), (1.5, False)]
)
def test_forms_of_annotations(value, taken):
    form = form_of('int | Sequence[int] | None')
    assert (form.fault('x', value) is None) == taken


@pytest.mark.parametrize(
    'annotation, right, wrong',
    [
        (float, 1, '1'),
        (Sequence[float], [1.0], ['1']),
        (Optional[int], None, 1.5),
        ('Optional[int]', 3, '3'),
        (Union[int, str], 'a', 1.5),
        ('List[int]', [1], [1.5]),
        ('Dict[str, int]', dict(a=1), dict(a='1')),
        ('Tuple[int, int]', (1, 2), (1,)),
        (nn.Module, nn.ReLU(), 'ReLU'),
    ],
)
def test_annotations_need_no_future_import(annotation, right, wrong):
    form = form_of(annotation)
    assert form.fault('x', right) is None and form.fault('x', wrong) is not None


class Plainly:
    """A user's class: no future import, a None by default, and words for an annotation."""

    def __init__(self, weight=1.0, size=None, what=None):
        self.what = what

    __init__.__annotations__ = dict(weight=float, size=int, what='a map of some kind')


def test_a_users_class_is_checked():
    assert checked(Plainly)(1, None, what=object()).what is not None
    with pytest.raises(ValueError, match="weight is '1': give Plainly a number, such as 1.0"):
        Plainly(weight='1')
    with pytest.raises(ValueError, match=r'size is 2.5: give Plainly a whole number or None'):
        Plainly(size=2.5)


def test_an_annotation_that_names_no_form_takes_anything():
    assert form_of('Callable[[Tensor], Tensor] | None') == ANYTHING
    assert form_of('Sequence[Tensor]').fault('feats', [object()]) is None
