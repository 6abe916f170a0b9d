"""Distillation in each of the three task families."""

import copy

import pytest
import torch
from conftest import STAGES
from mmengine.optim import OptimWrapper
from mmengine.runner.checkpoint import get_state_dict

from mmlckd.registry import MODELS


def distiller(family, loss_weight=1., **kwargs):
    torch.manual_seed(0)
    losses = dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', loss_weight=loss_weight, connectors=True))
    return MODELS.build(dict(type='mmlckd.LipschitzDistiller', student=copy.deepcopy(family.student),
                             teacher=dict(model=copy.deepcopy(family.teacher)), taps=STAGES, losses=losses, **kwargs))


def losses_of(model, family):
    torch.manual_seed(1)  # detectors sample proposals
    data = model.data_preprocessor(copy.deepcopy(family.batch), True)
    return model(**data, mode='loss')


def test_distillation_gradient_reaches_the_student_and_never_the_teacher(family):
    model = distiller(family).train()
    model.teacher.load()
    before = copy.deepcopy(model.teacher.model.state_dict())
    losses_of(model, family)['distiller.loss_lipschitz'].backward()
    first = next(model.backbone.layer1.parameters())
    assert first.grad.norm() > 0
    assert all(parameter.grad is None for parameter in model.teacher.model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.teacher.model.state_dict().items())


def test_a_step_with_weight_zero_gives_other_weights(family):
    weights = []
    for loss_weight in (0., 1.):
        model = distiller(family, loss_weight).train()
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        torch.manual_seed(1)
        model.train_step(copy.deepcopy(family.batch), optimizer)
        weights.append(next(model.backbone.layer1.parameters()).detach().clone())
    assert not torch.equal(*weights)


def test_student_losses_keep_their_names_and_values(family):
    model = distiller(family).train()
    losses = losses_of(model, family)
    torch.manual_seed(1)
    data = model.data_preprocessor(copy.deepcopy(family.batch), True)
    alone = copy.deepcopy(model.student).loss(data['inputs'], data['data_samples'])
    assert set(losses) == {*alone, 'distiller.loss_lipschitz'}


def test_teacher_stops_after_its_deepest_tap(family):
    model = distiller(family).train()
    later = model.teacher.model.neck if family.name == 'detection' else \
        model.teacher.model.decode_head.conv_seg if family.name == 'segmentation' else model.teacher.model.head.fc
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
    with torch.no_grad():
        ours, theirs = (network.test_step(copy.deepcopy(family.batch)) for network in (model, model.student))
    field = dict(classification='pred_score', segmentation='seg_logits', detection='pred_instances')[family.name]
    for one, other in zip(ours, theirs):
        one, other = one.get(field), other.get(field)
        one, other = (getattr(value, 'data', value) if family.name != 'detection' else value.scores for value in (one, other))
        assert torch.equal(one, other)


@pytest.mark.parametrize('taps', ['resnet_preact', dict(student=STAGES, teacher='resnet_preact')])
def test_preset_taps(family, taps):
    losses = dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss'))
    model = MODELS.build(dict(type='mmlckd.LipschitzDistiller', student=family.student, teacher=dict(model=family.teacher), taps=taps, losses=losses))
    assert len(model.entries[0].teacher_taps) == 4
    assert losses_of(model.train(), family)['distiller.loss_lipschitz'] > 0
    # pre-activation maps keep their negative part: the in-place ReLU after them no longer overwrites it
    assert not any(module.inplace for name, module in model.teacher.model.named_modules() if name.endswith('layer4.2.relu'))
