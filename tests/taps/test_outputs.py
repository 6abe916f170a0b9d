"""taps='logits' and taps='boxes' on heads of every kind."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn

from mmlckd.config import read_config
from mmlckd.registry import MODELS
from mmlckd.taps import Tap, output_pairs


def classifier(head, width=16, **backbone):
    __import__('mmpretrain.models')
    init_default_scope('mmpretrain')
    backbone = backbone or dict(type='ResNet', depth=18, base_channels=width, stem_channels=width)
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(type='ClsDataPreprocessor'),
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling') if backbone['type'] == 'ResNet' else None,
        head=dict(head),
    )


def heads(kind, width, **fields):
    return dict(type=kind, in_channels=8 * width, num_classes=5, **fields)


SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True)
KINDS = {
    # head, where its logits are, what they meet
    'linear': (lambda width: heads('LinearClsHead', width), 'head.fc', 'softmax'),
    'multi-label': (lambda width: heads('MultiLabelLinearClsHead', width, loss=SIGMOID), 'head.fc', 'sigmoid'),
    'multi-label, asymmetric': (
        lambda width: heads('MultiLabelLinearClsHead', width, loss=dict(type='AsymmetricLoss')), 'head.fc', 'sigmoid'
    ),
    'stacked, as wide as the classes': (
        lambda width: heads('StackedLinearClsHead', width, mid_channels=[5]), 'head.layers.1.fc', 'softmax'
    ),
    'stacked': (lambda width: heads('StackedLinearClsHead', width, mid_channels=[6]), 'head.layers.1.fc', 'softmax'),
    'LeViT': (lambda width: heads('LeViTClsHead', width), 'head.head.linear', 'softmax'),
    'ViG, of convolutions': (
        lambda width: dict(type='VigClsHead', num_classes=5, in_channels=8 * width, hidden_dim=6), 'head', 'softmax'
    ),
}  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_classifiers(kind):
    make, path, activation = KINDS[kind]
    batch = samples(kind)
    losses = dict(kd=dict(type='mmlckd.LogitsKDLoss', taps='logits'))
    model = distil(classifier(make(16)), classifier(make(24), 24), losses).train()
    (entry,) = model.distiller.entries
    assert entry.student_taps == entry.teacher_taps == [Tap(path)]
    assert entry.loss.reader.activation_at(0) == activation
    if kind == 'LeViT':
        return  # mmpretrain cannot train it
    assert_gradient(model, batch, 'kd')


@pytest.mark.parametrize('hidden, path', [(5, 'head.layers.head'), (7, 'head.layers.head'), (None, 'head.layers.head')])
def test_a_transformers_head_with_a_layer_before_its_last(hidden, path):
    backbone = dict(type='VisionTransformer', arch='deit-t', img_size=32, patch_size=16)
    head = dict(type='VisionTransformerClsHead', num_classes=5, in_channels=192, hidden_dim=hidden)
    network = MODELS.build(classifier(head, **backbone))
    assert output_pairs(network, network) == [(Tap(path), Tap(path))]


def test_a_second_output_for_distillation_is_not_the_logits():
    backbone = dict(type='DistilledVisionTransformer', arch='deit-t', img_size=32, patch_size=16)
    network = MODELS.build(classifier(dict(type='DeiTClsHead', num_classes=5, in_channels=192), **backbone))
    assert output_pairs(network, network) == [(Tap('head.layers.head'), Tap('head.layers.head'))]


def test_cosines_are_no_logits():
    network = MODELS.build(classifier(heads('ArcFaceClsHead', 16)))
    with pytest.raises(ValueError, match='ArcFaceClsHead has no layer that gives logits'):
        output_pairs(network, network)


def samples(kind=''):
    from mmpretrain.structures import DataSample

    labels = [[0, 2], [1]] if 'multi-label' in kind else [0, 1]
    found = [DataSample().set_gt_label(label) for label in labels]
    if 'multi-label' in kind:
        found = [sample.set_gt_score(torch.zeros(5).index_fill(0, sample.gt_label, 1.0)) for sample in found]
    return dict(inputs=torch.randn(2, 3, 32, 32), data_samples=found)


def distil(student, teacher, losses):
    return MODELS.build(
        dict(type='mmlckd.LipschitzDistiller', student=student, teacher=dict(model=teacher), losses=losses)
    )


def assert_gradient(model, batch, name):
    model(**batch, mode='loss')[f'distiller.loss_{name}'].backward()
    weight = next(weight for path, weight in model.named_parameters() if path.startswith('backbone.'))
    assert weight.grad.isfinite().all() and weight.grad.norm() > 0


def multi_task(width, **classes):
    tasks = {
        name: dict(type='MultiLabelLinearClsHead' if name == 'tags' else 'LinearClsHead', num_classes=count)
        for name, count in classes.items()
    }
    return dict(type='MultiTaskHead', in_channels=8 * width, task_heads=tasks)


def test_tasks_that_both_have():
    from mmpretrain.structures import DataSample, MultiTaskDataSample

    found = []
    for i in range(2):
        sample = MultiTaskDataSample()
        for task, count in dict(kind=3, tags=4, own=6).items():
            one = DataSample().set_gt_label([i] if task == 'tags' else i)
            sample.set_field(one.set_gt_score(torch.eye(count)[i]), task)
        found.append(sample)
    student, teacher = multi_task(16, kind=3, tags=4, own=6), multi_task(24, tags=4, other=9, kind=3)
    losses = dict(kd=dict(type='mmlckd.LogitsKDLoss', taps='logits'))
    model = distil(classifier(student), classifier(teacher, 24), losses).train()
    (entry,) = model.distiller.entries
    expected = [Tap('head.task_heads.kind.fc'), Tap('head.task_heads.tags.fc')]
    assert entry.student_taps == entry.teacher_taps == expected
    assert [entry.loss.reader.activation_at(i) for i in (0, 1)] == ['softmax', 'sigmoid']
    assert_gradient(model, dict(inputs=torch.randn(2, 3, 32, 32), data_samples=found), 'kd')


@pytest.mark.parametrize(
    'student, teacher, message',
    [
        (dict(kind=3), dict(kind=7), 'the student has 3 classes, the teacher 7: leave this loss out'),
        (dict(kind=3), dict(tags=3), "the student's head is for 'kind', the teacher's for 'tags': leave this loss out"),
    ],
)
def test_tasks_that_do_not_meet(student, teacher, message):
    both = [MODELS.build(classifier(multi_task(16, **tasks))) for tasks in (student, teacher)]
    with pytest.raises(ValueError, match=message):
        output_pairs(*both)
    both[1] = MODELS.build(classifier(heads('LinearClsHead', 16)))
    with pytest.raises(ValueError, match="is for 'kind', the teacher's for one task"):
        output_pairs(*both)


@pytest.mark.parametrize('taps', ['logits', ['head.fc']])
def test_other_classes_are_refused_in_one_sentence_and_features_are_not(taps):
    student, teacher = (
        classifier(heads('LinearClsHead', 16)),
        classifier(dict(heads('LinearClsHead', 24), num_classes=7), 24),
    )
    pkd = dict(type='mmlckd.PKDLoss', connectors=True, taps=['backbone.layer3', 'backbone.layer4'])
    with pytest.raises(ValueError, match='5 classes.* 7.*features can be compared all the same') as refusal:
        distil(student, teacher, dict(pkd=pkd, kd=dict(type='mmlckd.LogitsKDLoss', taps=taps)))
    assert '. ' not in str(refusal.value)
    assert_gradient(distil(student, teacher, dict(pkd=pkd)).train(), samples(), 'pkd')


def test_maps_of_other_channels_are_refused_at_the_start():
    student, teacher = classifier(heads('LinearClsHead', 16)), classifier(heads('LinearClsHead', 24), 24)
    for loss in ('OFDLoss', 'PKDLoss'):
        with pytest.raises(ValueError, match='backbone.layer4, which gives 128 channels.* 192.*connectors=True'):
            distil(student, teacher, dict(it=dict(type=f'mmlckd.{loss}', taps=['backbone.layer4'])))


# Detectors


def narrow(name, width, **head):
    """A detector of mmdet with a narrow ResNet-18, 4 classes and three levels."""
    __import__('mmdet.models')
    init_default_scope('mmdet')
    model = read_config(f'mmdet::{name}').model
    model.backbone.update(depth=18, base_channels=width, init_cfg=None, frozen_stages=-1, norm_eval=False)
    model.neck.update(in_channels=[width, 2 * width, 4 * width, 8 * width], out_channels=32, num_outs=3)
    model.bbox_head.update(in_channels=32, feat_channels=32, num_classes=4, stacked_convs=1, **head)
    if 'anchor_generator' in model.bbox_head:
        model.bbox_head.anchor_generator.strides = [8, 16, 32]
    else:
        model.bbox_head.update(strides=[8, 16, 32], regress_ranges=((-1, 64), (64, 128), (128, 1e8)))
    return model


def boxes(size=64):
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(2, [[3, size, size]] * 2, num_items=[2, 2], num_classes=4)


L1 = dict(type='mmlckd.EachMapLoss', loss=dict(type='torch.nn.SmoothL1Loss'))
KD = dict(type='mmlckd.LogitsKDLoss')
DETECTORS = {
    'RetinaNet': ('retinanet/retinanet_r18_fpn_1x_coco.py', 'retina_cls', 'retina_reg', L1),
    'ATSS': ('atss/atss_r50_fpn_1x_coco.py', 'atss_cls', 'atss_reg', L1),
    'FCOS': ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'conv_cls', 'conv_reg', L1),
    'GFL': ('gfl/gfl_r50_fpn_1x_coco.py', 'gfl_cls', 'gfl_reg', KD),
}


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors_with_the_same_head(name):
    path, classes, regression, on_boxes = DETECTORS[name]
    losses = dict(kd=dict(KD, taps='logits'), boxes=dict(on_boxes, taps='boxes'))
    model = distil(narrow(path, 8), narrow(path, 16), losses).train()
    kd, ld = model.distiller.entries
    assert kd.student_taps == kd.teacher_taps == [Tap(f'bbox_head.{classes}', call=level) for level in range(3)]
    assert ld.student_taps == ld.teacher_taps == [Tap(f'bbox_head.{regression}', call=level) for level in range(3)]
    assert kd.loss.reader.activation_at(0) == 'sigmoid'
    if on_boxes is KD:  # LD: a softmax over the 17 distances of each of 4 sides
        assert ld.loss.reader.activation_at(0) == 'softmax'
        assert ld.loss.reader.distributions(torch.zeros(2, 68, 8, 8), 0).shape == (2, 17, 4, 8, 8)
    batch = model.data_preprocessor(boxes(), True)
    assert_gradient(model, batch, 'kd')
    model.zero_grad()
    assert_gradient(model, batch, 'boxes')


@pytest.mark.parametrize(
    'path, taps',
    [
        (
            'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
            dict(
                logits=[f'bbox_head.rtm_cls.{i}' for i in range(3)], boxes=[f'bbox_head.rtm_reg.{i}' for i in range(3)]
            ),
        ),
        (
            'yolox/yolox_tiny_8xb8-300e_coco.py',
            dict(
                logits=[f'bbox_head.multi_level_conv_cls.{i}' for i in range(3)],
                boxes=[f'bbox_head.multi_level_conv_reg.{i}' for i in range(3)],
            ),
        ),
        ('centernet/centernet_r18_8xb16-crop512-140e_coco.py', dict(logits=['bbox_head.heatmap_head.2'])),
    ],
)
def test_detectors_of_one_layer_a_level(path, taps):
    __import__('mmdet.models')
    init_default_scope('mmdet')
    model = MODELS.build(read_config(f'mmdet::{path}').model)
    for kind, paths in taps.items():
        assert output_pairs(model, model, kind) == [(Tap(path, call=0), Tap(path, call=0)) for path in paths]


@pytest.mark.parametrize(
    'path, kind, message',
    [
        ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'logits', 'FasterRCNN, whose proposals differ'),
        ('detr/detr_r50_8xb2-150e_coco.py', 'logits', 'DETRHead has no convolution that gives them'),
        ('yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py', 'logits', 'YOLOV3Head has no convolution'),
        ('centernet/centernet_r18_8xb16-crop512-140e_coco.py', 'boxes', 'CenterNetHead has no convolution'),
    ],
)  # fmt: skip
def test_detectors_without_such_layers(path, kind, message):
    __import__('mmdet.models')
    init_default_scope('mmdet')
    model = MODELS.build(read_config(f'mmdet::{path}').model)
    with pytest.raises(ValueError, match=f"taps is '{kind}' and the student.*{message}.*leave this loss out"):
        output_pairs(model, model, kind)


def test_detectors_that_do_not_fit():
    path = DETECTORS['RetinaNet'][0]
    retina, other = (MODELS.build(narrow(path, 8)) for _ in range(2))
    gfl = MODELS.build(narrow(DETECTORS['GFL'][0], 8))
    more = narrow(path, 8)
    more.bbox_head.num_classes = 7
    for kind, teacher, message in (
        ('logits', MODELS.build(more), 'the student has 36 classes, the teacher 63'),  # 9 anchors
        ('boxes', gfl, 'the student gives 36 numbers a position, the teacher 68'),
    ):
        with pytest.raises(ValueError, match=message):
            output_pairs(retina, teacher, kind)
    other.bbox_head.prior_generator.strides = [(4, 4), (8, 8), (16, 16)]
    with pytest.raises(ValueError, match=r'strides .*\(8, 8\).*, the teacher at .*\(4, 4\)'):
        output_pairs(retina, other)
    with pytest.raises(ValueError, match="gives boxes and no logits: take dict.type='mmlckd.EachMapLoss'"):
        distil(narrow(path, 8), narrow(path, 8), dict(kd=dict(KD, taps='boxes')))
    with pytest.raises(ValueError, match="taps is 'boxes' and the student is a ImageClassifier, no single-stage"):
        student = MODELS.build(classifier(heads('LinearClsHead', 16)))
        output_pairs(student, student, 'boxes')
    assert isinstance(retina, nn.Module)
