"""The fields of a run and of a distillation: field, accepted forms, and a value to show."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS

from .forms import DICT, FLAG, LIST, MODULE, NONE, NUMBER, TEXT, TYPE, WHOLE, Form, any_of, dict_of, list_of, record


def _is_scope(value: Any) -> bool:
    if not isinstance(value, str) or not value.isidentifier():
        return False
    return value in MODELS.children or find_spec(value) is not None


SCOPE = Form.called('the name of an installed package', 'names of installed packages', _is_scope)
HOOK = Form.called('a hook', 'hooks', lambda value: isinstance(value, Hook))
STEP = Form.called('a function', 'functions', callable)
ALL = Form.called("'all'", "'all'", lambda value: value == 'all')
AUTO = Form.called("'auto'", "'auto'", lambda value: value == 'auto')
TAP_OBJECT = Form.called('a Tap', 'Taps', dataclasses.is_dataclass)


def optional(form: Form, example: Any = None) -> Form:
    both = any_of(form, NONE)
    return both if example is None else both.such_as(example)


TAP = any_of(
    TEXT,
    record(
        module=TEXT.such_as("'backbone.layer1'"),
        io=TEXT.such_as("'output'"),
        call=any_of(WHOLE, ALL).such_as(-1),
        index=optional(WHOLE, 0),
        grid=optional(any_of(list_of(WHOLE, 2), AUTO), "'auto'"),
    ),
    TAP_OBJECT,
).such_as("dict(module='backbone.layer1.1.relu', io='input')")
TAPS_OF_ONE = any_of(list_of(TAP), TEXT).such_as("['backbone.layer1', 'backbone.layer2']")
TAPS = any_of(list_of(TAP), TEXT, record(student=TAPS_OF_ONE, teacher=TAPS_OF_ONE), NONE).such_as(TAPS_OF_ONE.example)
TEACHER = record(
    config=TEXT.such_as("'configs/teachers/voc_faster_rcnn_r101.py'"),
    model=any_of(DICT, MODULE).such_as("dict(type='ImageClassifier', ...)"),
    checkpoint=optional(TEXT, "'work_dirs/teacher/epoch_100.pth'"),
    norm_stats=TEXT.such_as("'running'"),
    precision=optional(TEXT, "'bf16'"),
)
ANY_TEACHER = any_of(TEXT, TEACHER, MODULE).such_as("dict(config='configs/teachers/...', checkpoint='....pth')")
ENTRY = record(
    type=TYPE,
    taps=TAPS,
    connectors=FLAG,
    max_share=optional(NUMBER, 0.5),
    teacher=optional(TEXT),
    views=optional(TEXT, "'both'"),
)
DISTILLER = dict(
    student=DICT.such_as('{{_base_.model}}'),
    teacher=optional(ANY_TEACHER, ANY_TEACHER.example),
    teachers=optional(dict_of(ANY_TEACHER), "dict(first=dict(config='...'), second=dict(config='...'))"),
    losses=dict_of(optional(ENTRY, "dict(type='mmlckd.LogitsKDLoss', taps=['head.fc'])")).such_as(
        "dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss'))"
    ),
    taps=TAPS,
    view=optional(DICT, "dict(type='mmlckd.MixedView')"),
    input_shape=optional(list_of(WHOLE), (3, 224, 224)),
)

# By class: fields whose inside is looked at too.
SCHEMAS = dict(LipschitzDistiller=DISTILLER)

# By class and field: a value to show where the default is none.
EXAMPLES = {
    'OFDLoss.margins_from': "['backbone.layer4.1.bn2']",
    'LossWeightHook.loss': "'lipschitz'",
    'LossWeightHook.milestones': '[60, 120]',
    'LossWeightHook.weights': '[0.5, 0.1]',
    'MomentumRestartHook.epochs': '[100, 150]',
    'ConnectorWarmupHook.iters': '500',
    'SpectralNormHook.layers': "'backbone.layer4'",
    'SpectralNormHook.max_norm': '1.0',
    'WideResNet.depth': '16',
    'CifarResNet.depth': '56',
    'PyramidNet.depth': '110',
    'PyramidNet.alpha': '84',
}

LOADER = optional(
    record(dataset=DICT, batch_size=WHOLE.such_as(16), num_workers=WHOLE.such_as(2)),
    'dict(batch_size=16, dataset=dict(type=...))',
)
CLIPPING = record(max_norm=NUMBER.such_as(35), norm_type=NUMBER)
OPTIMIZER = record(type=TYPE, lr=NUMBER.such_as(0.1), momentum=NUMBER.such_as(0.9), weight_decay=NUMBER.such_as(5e-4))
LOOP = record(
    max_epochs=optional(WHOLE, 100), max_iters=WHOLE.such_as(20000), val_interval=WHOLE.such_as(1), by_epoch=FLAG
)
RUN = dict(
    model=DICT,
    default_scope=optional(SCOPE, "'mmdet', 'mmseg' or 'mmpretrain'"),
    work_dir=optional(TEXT, "'work_dirs/mine'"),
    load_from=optional(TEXT, "'work_dirs/mine/epoch_10.pth'"),
    resume=FLAG,
    randomness=record(seed=optional(WHOLE, 0), deterministic=FLAG, diff_rank_seed=FLAG).such_as('dict(seed=0)'),
    optim_wrapper=optional(
        record(
            type=TYPE,
            optimizer=OPTIMIZER.such_as("dict(type='SGD', lr=0.1)"),
            clip_grad=optional(CLIPPING, 'dict(max_norm=35)'),
            accumulative_counts=WHOLE.such_as(1),
        ),
        "dict(optimizer=dict(type='SGD', lr=0.1))",
    ),
    param_scheduler=optional(any_of(DICT, list_of(DICT)), "dict(type='MultiStepLR', milestones=[60, 80])"),
    default_hooks=dict_of(optional(any_of(DICT, HOOK), "dict(type='CheckpointHook', interval=1)")).such_as(
        'dict(checkpoint=dict(interval=1))'
    ),
    custom_hooks=optional(list_of(any_of(DICT, HOOK)), "[dict(type='mmlckd.SpectralNormHook')]"),
    train_cfg=optional(LOOP, 'dict(by_epoch=True, max_epochs=100)'),
    val_cfg=optional(DICT, 'dict()'),
    test_cfg=optional(DICT, 'dict()'),
    train_dataloader=LOADER,
    val_dataloader=LOADER,
    test_dataloader=LOADER,
    val_evaluator=optional(any_of(DICT, LIST), "dict(type='Accuracy')"),
    test_evaluator=optional(any_of(DICT, LIST), "dict(type='Accuracy')"),
    data_preprocessor=optional(DICT, 'dict(mean=[127.5], std=[127.5])'),
    auto_scale_lr=optional(record(base_batch_size=optional(WHOLE, 256), enable=FLAG), 'dict(base_batch_size=256)'),
    visualizer=optional(DICT, "dict(type='Visualizer')"),
    env_cfg=DICT,
    find_unused_parameters=FLAG,
    model_wrapper_cfg=optional(record(type=TYPE), "dict(type='MMDistributedDataParallel')"),
    prerequisites=dict_of(TEXT).such_as("{'data/mnist5k': 'python tools/prepare_digits.py'}"),
)


DATASET = dict(
    type=TYPE,
    data_root=optional(TEXT, "'data/mnist5k'"),
    ann_file=optional(TEXT, "'meta/train.txt'"),
    data_prefix=optional(any_of(TEXT, dict_of(optional(TEXT))), "dict(img='images/')"),
    metainfo=optional(
        record(classes=any_of(TEXT, list_of(TEXT)).such_as(('cat', 'dog'))), "dict(classes=('cat', 'dog'))"
    ),
    pipeline=list_of(any_of(DICT, STEP)).such_as("[dict(type='LoadImageFromFile'), ...]"),
)


def check_run(config: Config) -> None:
    """See that the fields of a run have forms that MMEngine and the tools can work with.

    Raises:
        ValueError: One has not; the message names it, its value and the right form.
    """
    for name, form in RUN.items():
        _raise(form.fault(name, config[name]) if name in config else None)


def check_dataset(field: str, dataset: dict) -> None:
    """The same for the fields of a data set, which stands in that field.

    Raises:
        ValueError: As :func:`check_run`.
    """
    _raise(record(**DATASET).fault(field, dataset))


def check_distiller(model: dict) -> None:
    """The same for the fields of a distiller's dict.

    Raises:
        ValueError: As :func:`check_run`.
    """
    _raise(record(**DISTILLER).fault('model', model))


def _raise(fault: str | None) -> None:
    if fault is not None:
        raise ValueError(fault)
