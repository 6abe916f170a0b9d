"""A distillation loss that teaches the student nothing is refused at the first training step."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from conftest import COMPILES, STAGES
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from short_run import distillation
from torch import distributed, nn
from torch.utils.checkpoint import checkpoint

from mmlckd.distillers import LipschitzDistiller, gradient_check
from mmlckd.distillers.gradient_check import carries_gradient
from mmlckd.optim import CpuAmpOptimWrapper
from mmlckd.registry import MODELS

AT = dict(type='mmlckd.AttentionTransferLoss')


class Blocks(BaseModel):
    """Three convolutions; ``how`` runs the first two in some special way."""

    def __init__(self, how=None, width=4):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(c, width, 1) for c in (3, width, width))
        self.how = how

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self._start(inputs)
        output = self.third(x)
        return dict(loss=output.square().mean()) if mode == 'loss' else output

    def _both(self, x):
        return self.second(self.first(x))

    def _start(self, x):
        if self.how == 'reentrant':
            return checkpoint(self._both, x.requires_grad_(), use_reentrant=True)
        if self.how == 'non-reentrant':
            return checkpoint(self._both, x, use_reentrant=False)
        if self.how == 'no_grad':
            with torch.no_grad():
                return self._both(x)
        if self.how == 'detached':
            return self.second(self.first(x).detach())
        return self._both(x)


def distil(student, taps, **losses):
    losses = losses or dict(at=AT)
    return LipschitzDistiller(student=student, teacher=dict(model=Blocks()), taps=taps, losses=losses)


def step(model, optim_wrapper=OptimWrapper):
    model = model.train()
    optimizer = optim_wrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    return model.train_step(dict(inputs=torch.randn(2, 3, 4, 4)), optimizer)


def frozen(*names):
    student = Blocks()
    for name in names:
        student.get_submodule(name).requires_grad_(False)
    return student


REENTRANT = 'inside reentrant activation checkpointing'
CASES = {
    'a tap in a reentrant block': (lambda: Blocks('reentrant'), 'first', REENTRANT),
    'a tap under no_grad': (lambda: Blocks('no_grad'), 'second', r'computed under torch.no_grad\(\)'),
    'a frozen start': (lambda: frozen('first', 'second'), 'second', 'all weights up to there are frozen'),
    'everything frozen': (lambda: frozen('first', 'second', 'third'), 'third', 'all weights up to there are frozen'),
}


@pytest.mark.parametrize('student, tap, reason', CASES.values(), ids=CASES)
@pytest.mark.parametrize('connectors', [False, True])
def test_a_loss_without_gradient_is_refused(student, tap, reason, connectors):
    model = distil(student(), [tap], at=dict(AT, connectors=connectors))
    with pytest.raises(
        ValueError, match=rf'losses.at teaches the student nothing, .*\({tap}: .*{reason}.*\): mend that'
    ):
        step(model)


def test_the_other_losses_do_not_hide_it():
    good, idle = dict(AT, taps=['third']), dict(AT, taps=['first'])
    with pytest.raises(ValueError, match='losses.idle teaches'):
        step(distil(frozen('first'), None, good=good, idle=idle))


WORKING = {
    'an ordinary student': (Blocks, ['first', 'second']),
    'the input of a later module': (lambda: Blocks('detached'), [dict(module='third', io='input')]),
    'non-reentrant blocks': (lambda: Blocks('non-reentrant'), ['first', 'second']),
    'the very output of a reentrant block': (lambda: Blocks('reentrant'), ['second']),
    'behind a reentrant block': (lambda: Blocks('reentrant'), [dict(module='third', io='input')]),
    'a trainable start': (lambda: frozen('second', 'third'), ['third']),
}


@pytest.mark.parametrize('student, taps', WORKING.values(), ids=WORKING)
def test_gradient_arrives_where_it_is_not_refused(student, taps):
    model = distil(student(), taps)
    model.train()
    losses = model(torch.randn(2, 3, 4, 4), mode='loss')
    losses['distiller.loss_at'].backward()
    gradients = [
        p.grad for name, p in model.named_parameters() if not name.startswith('distiller.') and p.grad is not None
    ]
    assert any(gradient.norm() > 0 for gradient in gradients)


def test_a_loss_behind_non_reentrant_blocks_has_the_gradient_of_plain_ones():
    plain, other = Blocks(), Blocks('non-reentrant')
    other.load_state_dict(plain.state_dict())
    inputs = torch.randn(2, 3, 4, 4)
    teacher = Blocks()
    for student in (plain, other):
        model = LipschitzDistiller(student=student, teacher=teacher, taps=['first'], losses=dict(at=AT)).train()
        model(inputs, mode='loss')['distiller.loss_at'].backward()
    assert plain.first.weight.grad.norm() > 0
    assert torch.allclose(plain.first.weight.grad, other.first.weight.grad, rtol=1e-6)  # one convolution's rounding


@pytest.fixture
def heard(monkeypatch):
    sentences = []
    monkeypatch.setattr(gradient_check, 'print_log', lambda message, logger, level: sentences.append(message))
    return sentences


def test_some_maps_without_gradient_are_named_once(heard):
    model = distil(frozen('first'), ['first', 'second', 'third'])
    for _ in range(3):
        step(model)
    assert heard == [
        'losses.at gets no gradient to the student from some of its maps (first: all weights up to there are frozen '
        '(frozen_stages, requires_grad), or the map is detached)'
    ]
    heard.clear()
    step(distil(Blocks(), ['first', 'second', 'third']))
    assert not heard


class Detaching(Blocks):
    """The map that goes into the last convolution is detached in one mode: the first view runs in 'loss' mode."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self._both(inputs)
        output = self.third(x.detach() if mode == self.mode else x)
        return dict(loss=output.square().mean()) if mode == 'loss' else output


LAST = dict(module='third', io='input')


def of_two_views(mode, **losses):
    losses = {name: dict(AT, views=views) for name, views in losses.items()}
    fields = dict(teacher=dict(model=Blocks()), taps=[LAST], view=dict(type='mmlckd.NoisyView'))
    return LipschitzDistiller(student=Detaching(mode), losses=losses, **fields)


@pytest.mark.parametrize('mode, idle, good', [('loss', 'first', 'second'), ('tensor', 'second', 'first')])
def test_a_loss_is_judged_by_the_views_that_it_compares(mode, idle, good, heard):
    both = dict(both='both')
    assert 'distiller.loss_good' in step(of_two_views(mode, good=good, **both))
    place = {'first': 'third (io=input)', 'second': 'third (io=input) in the second view'}[idle]
    (sentence,) = heard
    assert sentence.startswith(f'losses.both gets no gradient to the student from some of its maps ({place}: all ')
    with pytest.raises(ValueError, match=f'losses.idle teaches the student nothing, .*{re.escape(place)}: all weights'):
        step(of_two_views(mode, idle=idle, **both))


def detached(student_feats, teacher_feats):
    return (student_feats[0].detach() - teacher_feats[0]).square().mean()


def under_no_grad(student_feats, teacher_feats):
    with torch.no_grad():
        return (student_feats[0] - teacher_feats[0]).square().mean()


def of_the_teacher_alone(student_feats, teacher_feats):
    return teacher_feats[0].square().mean().requires_grad_()


class Outside(nn.Module):
    """A loss of another toolkit."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


class WithAWeight(nn.Module):
    """One whose own weight gets gradient, and the student none."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, student_feats, teacher_feats):
        return self.scale * detached(student_feats, teacher_feats)


@pytest.mark.parametrize('make', [detached, under_no_grad, of_the_teacher_alone, None])
@pytest.mark.parametrize('connectors', [False, True])
def test_a_loss_that_detaches_its_maps_is_refused(make, connectors):
    model = distil(Blocks(), ['first'], idle=dict(AT, connectors=connectors))
    entry = model.distiller.entries[0]
    entry.loss = model.distiller.losses['idle'] = WithAWeight() if make is None else Outside(make)
    with pytest.raises(ValueError, match='losses.idle teaches the student nothing, because its value carries no'):
        step(model)


@pytest.mark.parametrize('value', [2.0, None, [], torch.zeros(2), dict(loss=torch.zeros(()))])
def test_a_loss_that_returns_no_number_is_refused(value):
    model = distil(Blocks(), ['first'], wrong=AT)
    entry = model.distiller.entries[0]
    entry.loss = model.distiller.losses['wrong'] = Outside(lambda student_feats, teacher_feats: value)
    kind = r'a tensor \(2,\)' if isinstance(value, torch.Tensor) else f'a {type(value).__name__}'
    with pytest.raises(ValueError, match=f'losses.wrong is a Outside, which returns {kind} where one number'):
        step(model)


@pytest.mark.parametrize('field', ['with_cp', 'frozen_stages'])
def test_resnets_of_openmmlab(classification, field):
    student = copy.deepcopy(classification.student)
    student['backbone'].update({'with_cp': dict(with_cp=True), 'frozen_stages': dict(frozen_stages=2)}[field])
    model = MODELS.build(
        dict(
            type='mmlckd.LipschitzDistiller',
            student=student,
            teacher=dict(model=classification.teacher),
            taps=['backbone.layer1.0.bn1', 'backbone.layer2.0.bn1'],
            losses=dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True)),
        )
    ).train()
    data = model.data_preprocessor(classification.batch, True)
    # layer1 of with_cp runs as usual where nothing before it needs gradient: here the stem does
    reason = {'with_cp': r'set backbone.layer1.0.with_cp=False or tap', 'frozen_stages': 'frozen_stages'}[field]
    with pytest.raises(
        ValueError, match=f'losses.lipschitz teaches the student nothing.*backbone.layer1.0.bn1.*{reason}'
    ):
        model(**data, mode='loss')


def test_stage_ends_of_a_checkpointed_resnet_work(classification):
    student = copy.deepcopy(classification.student)
    student['backbone'].update(with_cp=True)
    model = MODELS.build(
        dict(
            type='mmlckd.LipschitzDistiller',
            student=student,
            teacher=dict(model=classification.teacher),
            taps=STAGES,
            losses=dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss')),
        )
    ).train()
    data = model.data_preprocessor(classification.batch, True)
    model(**data, mode='loss')['distiller.loss_lipschitz'].backward()
    assert model.backbone.layer1[0].conv1.weight.grad.norm() > 0  # inside a checkpointed block


def test_it_is_looked_at_once_and_only_in_training(monkeypatch):
    looked = []
    original = gradient_check.carries_gradient
    monkeypatch.setattr(gradient_check, 'carries_gradient', lambda *args: looked.append(1) or original(*args))
    model = distil(Blocks(), ['first', 'second'])
    inputs = torch.randn(2, 3, 4, 4)
    model.eval()(inputs, mode='loss')
    with torch.no_grad():
        model.train()(inputs, mode='loss')
    assert not looked
    for _ in range(3):
        step(model)
    assert len(looked) == 3  # one for each map, and one for the loss


def test_accumulation_and_mixed_precision():
    for wrapper in (
        lambda optimizer: OptimWrapper(optimizer, accumulative_counts=2),
        lambda optimizer: CpuAmpOptimWrapper(optimizer=optimizer),
    ):
        model = distil(Blocks(), ['first'])
        assert 'distiller.loss_at' in step(model, wrapper)
        with pytest.raises(ValueError, match='teaches the student nothing'):
            step(distil(frozen('first'), ['first']), wrapper)


@COMPILES
@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
@pytest.mark.parametrize('target', ['forward', 'train_step'])
def test_compiled_steps(backend, target):
    torch._dynamo.reset()
    for student, fails in ((Blocks(), False), (frozen('first'), True)):
        model = distil(student, ['first'])
        setattr(model, target, torch.compile(getattr(model, target), backend=backend))
        if fails:
            with pytest.raises(ValueError, match='teaches the student nothing'):
                step(model)
        else:
            assert all('distiller.loss_at' in step(model) for _ in range(3))


@pytest.fixture
def group():
    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_under_ddp(group):
    for student, fails in ((Blocks(), False), (frozen('first'), True)):
        model = MMDistributedDataParallel(distil(student, ['first']), device_ids=None)
        if fails:
            with pytest.raises(ValueError, match='teaches the student nothing'):
                step(model)
        else:
            assert 'distiller.loss_at' in step(model)


def test_a_warm_up_of_the_connectors_is_no_frozen_student(classification, tmp_path):
    run = distillation(classification, tmp_path, [dict(type='mmlckd.ConnectorWarmupHook', iters=1)], iters=2)
    run.train()
    assert run.model.distiller.checked


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def test_the_walk():
    weight, frozen_weight, image = nn.Parameter(torch.ones(2)), torch.ones(2), torch.ones(2, requires_grad=True)
    trainable = {id(weight)}
    assert carries_gradient(weight, trainable)  # a tap that gives a parameter
    assert carries_gradient((image * weight).sum(), trainable)
    assert not carries_gradient(image * 2, trainable)  # gradient, but to the image alone
    assert not carries_gradient(frozen_weight * 2, trainable)
    assert not carries_gradient((weight * 2).detach(), trainable)
    assert carries_gradient(Doubled.apply(image), trainable)  # what it does inside cannot be seen
    shared = weight
    for _ in range(200):  # 2^200 paths, and each node is looked at once
        shared = shared + shared
    assert not carries_gradient(shared, set())


def test_the_walk_goes_deep():
    weight = nn.Parameter(torch.ones(1))
    deep = weight
    for _ in range(5000):  # beyond the interpreter's recursion limit
        deep = deep + 1
    assert carries_gradient(deep, {id(weight)})
