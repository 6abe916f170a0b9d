"""What a distiller holds is let go with it, and processes share of it what they should."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm
from torch import distributed, nn

from mmlckd.registry import MODELS


def build(family):
    return MODELS.build(
        dict(
            type='mmlckd.LipschitzDistiller',
            student=family.student,
            teacher=dict(model=family.teacher),
            taps='resnet_preact',
            losses=dict(
                lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True),
                ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-3, connectors=True),
            ),
        )
    )


def hooks_on(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_a_deleted_distiller_is_gone(family):
    model = build(family)
    model.init_weights()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = hooks_on(model), hooks_on(model.distiller.teacher.model)
    for _ in range(2):
        data = model.data_preprocessor(family.batch, True)
        losses = model(**data, mode='loss')
        model.parse_losses(losses)[0].backward()
        optimizer.step()
    assert (hooks_on(model), hooks_on(model.distiller.teacher.model)) == before
    held = [
        weakref.ref(item)
        for item in (
            model,
            model.distiller.teacher,
            model.distiller.teacher.model,
            model.distiller,
            model.backbone.layer3,
        )
    ]
    held += [weakref.ref(parameter) for parameter in (*model.parameters(), *model.distiller.teacher.model.parameters())]
    del model, optimizer, data, losses
    gc.collect()
    assert not [reference() for reference in held if reference() is not None]


def test_a_forward_that_fails_leaves_no_hook(classification):
    model = build(classification)
    before = hooks_on(model), hooks_on(model.distiller.teacher.model)
    data = model.data_preprocessor(classification.batch, True)
    with pytest.raises(TypeError):  # the head iterates over labels that are missing
        model(data['inputs'], None, mode='loss')
    assert (hooks_on(model), hooks_on(model.distiller.teacher.model)) == before


@pytest.fixture
def group():
    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_the_teacher_is_none_of_what_processes_share(classification, group):
    model = build(classification)
    teacher = {
        id(tensor) for tensor in (*model.distiller.teacher.model.parameters(), *model.distiller.teacher.model.buffers())
    }
    wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=True)
    shared = {id(tensor) for tensor in (*wrapped.parameters(), *wrapped.buffers())}
    assert teacher and not teacher & shared and not any('teacher' in key for key in wrapped.state_dict())
    assert {id(tensor) for tensor in (*model.parameters(), *model.distiller.parameters())} <= shared


def test_sync_bn_reaches_student_and_connectors_and_not_the_teacher(classification):
    model = convert_sync_batchnorm(build(classification))
    norms = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    assert any('connectors' in name for name in norms) and any(name.startswith('backbone') for name in norms)
    assert all(isinstance(module, nn.SyncBatchNorm) for module in norms.values())
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.distiller.teacher.model.modules())
