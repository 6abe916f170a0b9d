"""LogitsKDLoss knows where classes are, and what they meet: on heads of the three hosts, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from torch import nn

from mmlckd.config import read_config
from mmlckd.losses import DISTLoss, LogitsKDLoss
from mmlckd.registry import MODELS
from mmlckd.taps import Tap


def logits(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def binary_divergence(teacher, student, tau):
    p, q = (torch.sigmoid(side.double() / tau) for side in (teacher, student))
    return tau**2 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())


# By hand


def test_one_sigmoid_in_closed_form():
    """At tau = 2 the teacher says yes with 3/4, from a logit of 2 log 3, and the student with 1/2."""
    teacher, student = torch.tensor([[2 * math.log(3.0)]]), torch.zeros(1, 1)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    loss = LogitsKDLoss(tau=2.0, loss_weight=0.5, activation='sigmoid')
    assert loss(student, teacher).item() == pytest.approx(0.5 * 4 * divergence)


def test_sigmoids_are_summed_over_classes():
    student, teacher = logits(0, 3, 5), logits(1, 3, 5)
    expected = binary_divergence(teacher, student, 4.0).sum(1).mean()
    # float32: terms of the order of 1 leave 1e-7 in a sum of the order of 0.1
    assert LogitsKDLoss(activation='sigmoid')(student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)


def test_far_sigmoids_keep_their_digits():
    # yes with probability sigmoid(100), which is 1 to all digits, against sigmoid(-100), whose logarithm is -100
    loss = LogitsKDLoss(tau=1.0, activation='sigmoid')(torch.tensor([[-100.0]]), torch.tensor([[100.0]]))
    assert loss.item() == pytest.approx(100.0)


@pytest.mark.parametrize('activation', ['softmax', 'sigmoid'])
def test_tokens_and_maps_have_their_classes_in_their_own_places(activation):
    student, teacher = logits(0, 6, 5), logits(1, 6, 5)  # two samples of three positions
    loss = LogitsKDLoss(activation=activation)
    expected = loss(student, teacher).item()
    tokens = [side.view(2, 3, 5) for side in (student, teacher)]
    assert loss(*tokens).item() == pytest.approx(expected)
    maps = [side.mT.unsqueeze(3) for side in tokens]
    assert loss(*maps).item() == pytest.approx(expected)


@pytest.mark.parametrize('activation', ['softmax', 'sigmoid'])
def test_anchors_count_as_positions(activation):
    student, teacher = logits(0, 2, 3, 5, 4, 4), logits(1, 2, 3, 5, 4, 4)  # three anchors of five classes
    one_by_one = sum(LogitsKDLoss(activation=activation)(student[:, a], teacher[:, a]) for a in range(3)) / 3
    together = LogitsKDLoss(activation=activation, num_classes=5)(student.flatten(1, 2), teacher.flatten(1, 2))
    assert together.item() == pytest.approx(one_by_one.item())


def test_softmax_gives_the_value_that_it_always_gave():
    for shape in ((4, 7), (2, 7, 3, 5)):
        student, teacher = logits(0, *shape), logits(1, *shape)
        student_log, teacher_log = (F.log_softmax(side / 4.0, dim=1) for side in (student, teacher))
        divergence = F.kl_div(student_log, teacher_log, reduction='none', log_target=True)
        distance = 16.0 * divergence.sum(1, keepdim=True).flatten(1).mean(1)
        head = with_loss(nn.CrossEntropyLoss(), nn.Linear(2, 7) if len(shape) == 2 else nn.Conv2d(2, 7, 1))
        head.num_classes = 7
        assert attached(head, 'layer')(student, teacher).item() == (distance.sum() / len(student)).item()
        assert LogitsKDLoss()(student, teacher).item() == (distance.sum() / len(student)).item()


@pytest.mark.parametrize('loss', [LogitsKDLoss(activation='sigmoid'), LogitsKDLoss(num_classes=2)])
def test_gradcheck(loss):
    student, teacher = (logits(i, 2, 4, 2, 2).double().requires_grad_() for i in range(2))
    assert torch.autograd.gradcheck(lambda feat: loss(feat, teacher), student)
    loss(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(activation='relu'), "activation is 'relu': choose one of 'auto', 'softmax', 'sigmoid'"),
        (dict(num_classes=0), 'num_classes is 0: give the channels of one class distribution, or None'),
        (dict(num_classes='80'), "num_classes is '80': give LogitsKDLoss a whole number or None"),
        (dict(tau=math.nan), 'tau is nan: a temperature must be positive'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        LogitsKDLoss(**options)


def test_channels_that_num_classes_does_not_divide():
    with pytest.raises(ValueError, match='num_classes is 3, which does not divide the 7 channels of the logits'):
        LogitsKDLoss(num_classes=3)(logits(0, 2, 7), logits(1, 2, 7))
    with pytest.raises(ValueError, match=r'the logits are \(4,\): \(B, K\), \(B, N, K\) or \(B, K, H, W\) is needed'):
        LogitsKDLoss()(logits(0, 4), logits(1, 4))


# What heads tell


def with_loss(loss, layer, name='loss_module'):
    head = nn.Module()
    head.layer = layer
    setattr(head, name, loss)
    return head


def attached(teacher, path, **options):
    loss = LogitsKDLoss(**options)
    loss.attach(teacher, [Tap.parse(path)])
    return loss


def build(scope, **cfg):
    __import__(f'{scope}.models')
    init_default_scope(scope)
    return nn.ModuleDict(dict(head=MODELS.build(cfg)))


def classifier(kind='LinearClsHead', loss=None, **options):
    loss = loss or dict(type='CrossEntropyLoss')
    return build('mmpretrain', type=kind, num_classes=6, in_channels=4, loss=loss, **options)


def dense(kind, **options):
    return build('mmdet', type=kind, num_classes=3, in_channels=8, feat_channels=32, **options)


def segmentor(**options):
    norm = dict(type='BN')
    return build(
        'mmseg', type='FCNHead', in_channels=4, channels=4, num_convs=0, concat_input=False, norm_cfg=norm, **options
    )


CROSS_ENTROPY, DICE = dict(type='CrossEntropyLoss', loss_name='loss_ce'), dict(type='DiceLoss', loss_name='loss_dice')
FOCAL = dict(type='FocalLoss', use_sigmoid=True)
SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True)

# head, path of the tap, what it gives, activation, classes of one distribution
HEADS = {
    'classifier': (classifier, 'head.fc', (2, 6), 'softmax', 6),
    'classifier, label smoothing': (
        lambda: classifier(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)),
        'head.fc',
        (2, 6),
        'softmax',
        6,
    ),
    'multi-label classifier': (
        lambda: classifier('MultiLabelLinearClsHead', loss=SIGMOID),
        'head.fc',
        (2, 6),
        'sigmoid',
        6,
    ),
    'multi-label, asymmetric': (
        lambda: classifier('MultiLabelLinearClsHead', loss=dict(type='AsymmetricLoss')),
        'head.fc',
        (2, 6),
        'sigmoid',
        6,
    ),
    'multi-label, focal without a flag': (
        lambda: classifier('MultiLabelLinearClsHead', loss=dict(type='FocalLoss')),
        'head.fc',
        (2, 6),
        'sigmoid',
        6,
    ),
    'the head itself': (classifier, 'head', (2, 6), 'softmax', 6),
    'RetinaNet': (lambda: dense('RetinaHead'), 'head.retina_cls', (2, 9 * 3, 4, 4), 'sigmoid', 3),
    'FCOS': (lambda: dense('FCOSHead'), 'head.conv_cls', (2, 3, 4, 4), 'sigmoid', 3),
    'RPN': (
        lambda: build('mmdet', type='RPNHead', in_channels=8, feat_channels=8, loss_cls=SIGMOID),
        'head.rpn_cls',
        (2, 9, 4, 4),
        'sigmoid',
        1,
    ),
    'RPN with a softmax': (
        lambda: build('mmdet', type='RPNHead', in_channels=8, feat_channels=8, loss_cls=dict(type='CrossEntropyLoss')),
        'head.rpn_cls',
        (2, 9 * 2, 4, 4),
        'softmax',
        2,
    ),
    'region head': (
        lambda: build('mmdet', type='Shared2FCBBoxHead', in_channels=4, fc_out_channels=8, num_classes=3),
        'head.fc_cls',
        (6, 4),
        'softmax',
        4,
    ),
    'DETR, all layers': (
        lambda: build('mmdet', type='DETRHead', num_classes=3, embed_dims=8),
        'head.fc_cls',
        (6, 2, 5, 4),
        'softmax',
        4,
    ),
    'DETR with sigmoids, one layer': (
        lambda: build('mmdet', type='DETRHead', num_classes=3, embed_dims=8, loss_cls=FOCAL),
        'head.fc_cls',
        (2, 5, 3),
        'sigmoid',
        3,
    ),
    'segmentor': (lambda: segmentor(num_classes=3), 'head.conv_seg', (2, 3, 4, 4), 'softmax', 3),
    'segmentor, dice beside': (
        lambda: segmentor(num_classes=3, loss_decode=[DICE, CROSS_ENTROPY]),
        'head.conv_seg',
        (2, 3, 4, 4),
        'softmax',
        3,
    ),
    'segmentor, dice alone': (
        lambda: segmentor(num_classes=3, loss_decode=DICE),
        'head.conv_seg',
        (2, 3, 4, 4),
        'sigmoid',
        3,
    ),
    'segmentor, hard examples': (
        lambda: segmentor(num_classes=3, loss_decode=dict(type='OhemCrossEntropy')),
        'head.conv_seg',
        (2, 3, 4, 4),
        'softmax',
        3,
    ),
    'segmentor of two classes': (
        lambda: segmentor(num_classes=2, out_channels=1, threshold=0.5, loss_decode=SIGMOID),
        'head.conv_seg',
        (2, 1, 4, 4),
        'sigmoid',
        1,
    ),
}


@pytest.mark.parametrize('name', HEADS)
def test_heads_tell_activation_classes_and_anchors(name):
    make, path, shape, activation, classes = HEADS[name]
    loss = attached(make(), path)
    student, teacher = logits(0, *shape), logits(1, *shape)
    queries = 'DETR' in name
    rows = [side if queries else side.movedim(1, -1) for side in (student, teacher)]
    rows = [side.reshape(-1, classes) for side in rows]
    if activation == 'sigmoid':
        expected = binary_divergence(rows[1], rows[0], 4.0).sum(1).mean()
    else:
        expected = LogitsKDLoss(activation='softmax')(*rows)
    assert loss(student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)
    shifted = loss(teacher + 5, teacher).item()
    assert shifted == pytest.approx(0, abs=1e-5) if activation == 'softmax' else shifted > 0.1


@pytest.mark.parametrize('level, anchors', [(0, 4), (1, 6)])
def test_levels_with_anchors_of_their_own(level, anchors):
    ssd = build(
        'mmdet',
        type='SSDHead',
        num_classes=3,
        in_channels=(8, 8, 8),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=300,
            basesize_ratio_range=(0.15, 0.9),
            strides=[8, 16, 32],
            ratios=[[2], [2, 3], [2]],
        ),
    )
    shape = tuple(ssd['head'].cls_convs[level](torch.zeros(2, 8, 4, 4)).shape)
    assert shape[1] == anchors * 4  # three classes and the background
    student, teacher = logits(0, *shape), logits(1, *shape)
    loss = attached(ssd, f'head.cls_convs.{level}.0')
    assert loss(student, teacher).item() == pytest.approx(LogitsKDLoss(num_classes=4)(student, teacher).item())


def test_each_tap_has_its_own_head():
    teacher = nn.ModuleDict(
        dict(a=with_loss(nn.CrossEntropyLoss(), nn.Linear(3, 4)), b=with_loss(nn.BCEWithLogitsLoss(), nn.Linear(3, 4)))
    )
    loss = LogitsKDLoss()
    loss.attach(teacher, [Tap('a.layer'), Tap('b.layer')])
    student, target = logits(0, 2, 4), logits(1, 2, 4)
    parts = [LogitsKDLoss(activation=activation)(student, target).item() for activation in ('softmax', 'sigmoid')]
    assert loss([student] * 2, [target] * 2).item() == pytest.approx(sum(parts))


def test_what_the_user_says_comes_first():
    head = with_loss(nn.BCEWithLogitsLoss(), nn.Linear(3, 6))
    head.num_classes = 6
    loss = attached(head, 'layer', activation='softmax', num_classes=2)
    student, teacher = logits(0, 2, 6), logits(1, 2, 6)
    assert loss(student, teacher).item() == LogitsKDLoss(num_classes=2)(student, teacher).item()


@pytest.mark.parametrize(
    'make, path, shape, message',
    [
        (
            lambda: dense('RetinaHead'),
            'head.cls_convs.0.conv',
            (2, 32, 4, 4),
            'gives 32 channels, which are not the 3 classes of its head times 9 anchors',
        ),
        (
            lambda: dense('FCOSHead'),
            'head.conv_centerness',
            (2, 1, 4, 4),
            'gives 1 channels, which are not the 3 classes',
        ),
        (
            classifier,
            'head.fc',
            (2, 12),
            'gives 12 channels, which are not the 6 or 7 classes of its head times 1 anchors',
        ),
        (
            lambda: build('mmdet', type='YOLOV3Head', num_classes=3, in_channels=(8, 8, 8), out_channels=(8, 8, 8)),
            'head.convs_pred.0',
            (2, 3 * 8, 4, 4),
            'gives 24 channels, which are not the 3 or 4 classes of its head times 3 anchors',
        ),
        (
            lambda: segmentor(num_classes=2, out_channels=1, threshold=0.5),
            'head.conv_seg',
            (2, 1, 4, 4),
            'gives one class, whose softmax is always 1',
        ),
    ],
)
@pytest.mark.parametrize('kind', [LogitsKDLoss, DISTLoss])
def test_channels_that_the_head_does_not_explain(make, path, shape, message, kind):
    loss = kind()
    loss.attach(make(), [Tap(path)])
    with pytest.raises(ValueError, match=f'teacher tap {path} {message}'):
        loss(logits(0, *shape), logits(1, *shape))


@pytest.mark.parametrize(
    'teacher, path',
    [
        (nn.Sequential(nn.Linear(3, 4)), '0'),  # no loss anywhere
        (with_loss(nn.KLDivLoss(), nn.Linear(3, 4)), 'layer'),  # one that does not tell
        (
            with_loss(nn.ModuleList([nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss()]), nn.Linear(3, 4)),
            'layer',
        ),  # two that differ
    ],
)
def test_an_activation_that_cannot_be_known_is_asked_for(teacher, path):
    message = f"activation is 'auto' and no loss around teacher tap {path} tells .*: set activation='softmax' or"
    with pytest.raises(ValueError, match=message):
        attached(teacher, path)
    loss = attached(teacher, path, activation='softmax')
    assert loss(logits(0, 2, 4), logits(1, 2, 4)).item() == LogitsKDLoss()(logits(0, 2, 4), logits(1, 2, 4)).item()


def test_retinanet_through_a_distiller():
    from mmdet.testing import demo_mm_inputs

    init_default_scope('mmdet')

    def retinanet(width):
        model = read_config('mmdet::_base_/models/retinanet_r50_fpn.py').model
        model.backbone.update(depth=18, base_channels=width, init_cfg=None, frozen_stages=-1, norm_eval=False)
        model.neck.update(in_channels=[width, 2 * width, 4 * width, 8 * width], out_channels=8, num_outs=3)
        model.bbox_head.update(in_channels=8, feat_channels=8, num_classes=4, stacked_convs=1)
        model.bbox_head.anchor_generator.strides = [8, 16, 32]
        return model

    taps = [dict(module='bbox_head.retina_cls', call=level) for level in range(3)]
    kd = dict(type='mmlckd.LogitsKDLoss', taps=taps)
    model = MODELS.build(
        dict(
            type='mmlckd.LipschitzDistiller',
            student=retinanet(8),
            teacher=dict(model=retinanet(16)),
            losses=dict(kd=kd),
        )
    ).train()
    batch = model.data_preprocessor(
        demo_mm_inputs(2, [[3, 64, 64], [3, 64, 64]], num_items=[2, 2], num_classes=4), True
    )
    model(**batch, mode='loss')['distiller.loss_kd'].backward()
    assert model.bbox_head.retina_cls.bias.grad.abs().min() > 0  # of every class of every anchor: no softmax over them
    reader = model.distiller.entries[0].loss.reader
    assert [reader.activation_at(level) for level in range(3)] == ['sigmoid'] * 3
    assert reader.distributions(torch.zeros(2, 9 * 4, 8, 8), 0).shape == (2, 4, 9, 8, 8)
