"""Distillation in each of the three task families."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from conftest import ROOT, STAGES
from mmengine.optim import OptimWrapper
from mmengine.runner.checkpoint import get_state_dict

from mmlckd.registry import MODELS


def distiller(family, loss_weight=1.0, taps=STAGES, **losses):
    torch.manual_seed(0)
    losses = dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', loss_weight=loss_weight, connectors=True), **losses)
    return MODELS.build(
        dict(
            type='mmlckd.LipschitzDistiller',
            student=copy.deepcopy(family.student),
            teacher=dict(model=copy.deepcopy(family.teacher)),
            taps=taps,
            losses=losses,
        )
    )


def losses_of(model, family):
    torch.manual_seed(1)  # detectors sample proposals
    data = model.data_preprocessor(copy.deepcopy(family.batch), True)
    return model(**data, mode='loss')


def test_distillation_gradient_reaches_the_student_and_never_the_teacher(family):
    model = distiller(family).train()
    model.distiller.teacher.load()
    before = copy.deepcopy(model.distiller.teacher.model.state_dict())
    losses_of(model, family)['distiller.loss_lipschitz'].backward()
    first = next(model.backbone.layer1.parameters())
    assert first.grad.norm() > 0
    assert all(parameter.grad is None for parameter in model.distiller.teacher.model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.distiller.teacher.model.state_dict().items())


def test_a_step_with_weight_zero_gives_other_weights(family):
    weights = []
    for loss_weight in (0.0, 1.0):
        model = distiller(family, loss_weight).train()
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        torch.manual_seed(1)
        model.train_step(copy.deepcopy(family.batch), optimizer)
        weights.append(next(model.backbone.layer1.parameters()).detach().clone())
    assert not torch.equal(*weights)


def test_student_losses_keep_their_names_and_values(family):
    model = distiller(family).train()
    model.distiller.teacher.load()  # draws random numbers
    before = copy.deepcopy(model.state_dict())
    losses = losses_of(model, family)
    torch.manual_seed(1)
    data = model.data_preprocessor(copy.deepcopy(family.batch), True)
    stock = MODELS.build(copy.deepcopy(family.student))
    stock.load_state_dict({key: value for key, value in before.items() if not key.startswith('distiller.')})
    torch.manual_seed(1)
    alone = stock.train()(**data, mode='loss')
    if 'loss' in alone:
        alone['student.loss'] = alone.pop('loss')  # MMEngine calls the total `loss`
    assert set(losses) == {*alone, 'distiller.loss_lipschitz'}
    flat = {name: value for name, value in alone.items() if isinstance(value, torch.Tensor)}
    assert flat and all(torch.equal(value, losses[name]) for name, value in flat.items())


def test_teacher_stops_after_its_deepest_tap(family):
    model = distiller(family).train()
    later = (
        model.distiller.teacher.model.neck
        if family.name == 'detection'
        else model.distiller.teacher.model.decode_head.conv_seg
        if family.name == 'segmentation'
        else model.distiller.teacher.model.head.fc
    )
    fired = []
    later.register_forward_hook(lambda *_: fired.append(1))
    losses_of(model, family)
    assert not fired


def test_checkpoint_is_a_student_checkpoint(family):
    model = distiller(family)
    state = get_state_dict(model)
    own = {key for key in state if not key.startswith('distiller.')}
    stock = MODELS.build(copy.deepcopy(family.student))
    assert own == set(stock.state_dict())
    assert own == {key for key in model.state_dict() if not key.startswith('distiller.')}
    stock.load_state_dict({key: state[key] for key in own}, strict=True)
    stock.eval(), model.eval()
    data = model.data_preprocessor(copy.deepcopy(family.batch), False)
    ours, theirs = (network.extract_feat(data['inputs'])[-1] for network in (model, stock))
    assert torch.equal(ours, theirs)


def test_predict_is_the_students(family):
    model = distiller(family).eval()
    stock = MODELS.build(copy.deepcopy(family.student)).eval()
    stock.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith('distiller.')})
    with torch.no_grad():
        ours, theirs = (network.test_step(copy.deepcopy(family.batch)) for network in (model, stock))
    field = dict(classification='pred_score', segmentation='seg_logits', detection='pred_instances')[family.name]
    for one, other in zip(ours, theirs):
        one, other = one.get(field), other.get(field)
        one, other = (
            getattr(value, 'data', value) if family.name != 'detection' else value.scores for value in (one, other)
        )
        assert torch.equal(one, other)


def test_a_step_never_waits_for_the_device(family, monkeypatch):
    """Reading a tensor's value stops the processor until the GPU has caught up: no line of this package does that."""
    ofd = dict(type='mmlckd.OFDLoss', connectors=True, max_share=0.2)
    model = distiller(family, taps='resnet_preact', ofd=ofd).train()
    losses_of(model, family)  # the first step moves things to the device
    package, waited = str(ROOT / 'mmlckd'), []

    def watched(name, original):
        def method(*args, **kwargs):
            caller = sys._getframe(1)
            if caller.f_code.co_filename.startswith(package):
                waited.append(f'{name} in {caller.f_code.co_filename}:{caller.f_lineno}')
            return original(*args, **kwargs)

        return method

    for name in ('item', 'cpu', 'tolist', 'numpy', 'nonzero', '__bool__', '__int__', '__float__', '__index__'):
        monkeypatch.setattr(torch.Tensor, name, watched(name, getattr(torch.Tensor, name)))
    loss, _ = model.parse_losses(losses_of(model, family))
    loss.backward()
    assert not waited


@pytest.mark.parametrize('taps', ['resnet_preact', dict(student=STAGES, teacher='resnet_preact')])
def test_preset_taps(family, taps):
    losses = dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss'))
    model = MODELS.build(
        dict(
            type='mmlckd.LipschitzDistiller',
            student=family.student,
            teacher=dict(model=family.teacher),
            taps=taps,
            losses=losses,
        )
    )
    assert len(model.distiller.entries[0].teacher_taps) == 4
    assert losses_of(model.train(), family)['distiller.loss_lipschitz'] > 0
    # pre-activation maps keep their negative part: the in-place ReLU after them no longer overwrites it
    assert not any(
        module.inplace
        for name, module in model.distiller.teacher.model.named_modules()
        if name.endswith('layer4.2.relu')
    )
