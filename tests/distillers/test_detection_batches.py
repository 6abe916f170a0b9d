"""Batches that detectors meet: images of different sizes, multi-scale training, images without objects."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope

from mmlckd.registry import MODELS
from mmlckd.taps import FeatureTap


@pytest.fixture
def detector():
    from conftest import _detection

    __import__('mmdet.models')
    init_default_scope('mmdet')

    def build(**preprocessing):
        student, teacher = _detection(18), _detection(34)
        for model in (student, teacher):
            model.data_preprocessor.update(preprocessing)
        torch.manual_seed(0)
        return MODELS.build(
            dict(
                type='mmlckd.LipschitzDistiller',
                student=student,
                teacher=dict(model=teacher),
                taps='resnet_preact',
                losses=dict(
                    ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-5, connectors=True),
                    lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True),
                ),
            )
        ).train()

    return build


def step(model, sizes, num_items):
    from mmdet.testing import demo_mm_inputs

    data = model.data_preprocessor(
        demo_mm_inputs(len(sizes), [[3, *size] for size in sizes], num_items=num_items, num_classes=3), True
    )
    before = [copy.deepcopy(sample) for sample in data['data_samples']]
    losses = model(**data, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total) and losses['distiller.loss_lipschitz'] > 0
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    return data, before, losses


def test_images_of_different_sizes_are_padded_together(detector):
    data, _, _ = step(detector(), [(64, 96), (80, 48)], [2, 1])
    assert tuple(data['inputs'].shape[2:]) == (96, 96)  # the larger of each side, up to a multiple of 32


def test_a_teacher_that_preprocesses_differently_sees_its_own_batch(detector):
    from mmdet.testing import demo_mm_inputs

    model = detector()
    teacher = model.distiller.teacher
    theirs = MODELS.build(
        dict(
            type='DetDataPreprocessor',
            mean=[103.5, 116.3, 123.7],
            std=[1.0, 2.0, 3.0],
            bgr_to_rgb=not getattr(model.data_preprocessor, '_channel_conversion', False),
            pad_value=5,
            pad_size_divisor=32,
        )
    )
    teacher.model.data_preprocessor = theirs
    teacher.prepare(teacher.taps, model, (3, 16, 16))
    data = demo_mm_inputs(2, [[3, 64, 96], [3, 80, 48]], num_items=[2, 1], num_classes=3)
    ours, expected = (side(copy.deepcopy(data), True) for side in (model.data_preprocessor, theirs))
    found = teacher(ours['inputs'], ours['data_samples'])
    with FeatureTap(teacher.model, teacher.taps) as feats, torch.no_grad():
        teacher.model(expected['inputs'], expected['data_samples'], mode='tensor')
    for tap in teacher.taps:
        torch.testing.assert_close(found[tap], feats[tap], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize('num_items', [[0, 2], [0, 0]])
def test_images_without_objects(detector, num_items):
    step(detector(), [(64, 64), (64, 64)], num_items)


def test_multi_scale_training(detector):
    MessageHub.get_current_instance().update_info('iter', 0)  # which a runner keeps
    model = detector(
        batch_augments=[dict(type='BatchSyncRandomResize', random_size_range=(128, 129), size_divisor=32, interval=1)]
    )
    assert tuple(step(model, [(64, 64)], [1])[0]['inputs'].shape[2:]) == (64, 64)
    # the size drawn after the first step holds for the next; teacher and student see the same images
    assert tuple(step(model, [(64, 64)], [1])[0]['inputs'].shape[2:]) == (128, 128)


def test_targets_are_what_the_student_alone_would_leave(detector):
    model = detector()
    data, before, losses = step(model, [(64, 64), (64, 64)], [2, 1])
    for one, other in zip(before, data['data_samples']):
        assert torch.equal(one.gt_instances.labels, other.gt_instances.labels) and len(one.gt_instances) == len(
            other.gt_instances
        )
        assert one.metainfo.keys() == other.metainfo.keys()
    assert {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'} < set(losses)


def test_the_teachers_heads_never_run(detector):
    model, fired = detector(), []
    for name, module in model.distiller.teacher.model.named_modules():
        if name.startswith(('neck', 'rpn_head', 'roi_head')):
            module.register_forward_hook(lambda *_, name=name: fired.append(name))
    step(model, [(64, 64)], [1])
    assert not fired
