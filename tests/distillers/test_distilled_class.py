"""The class made for a distilled student, against students that do unusual things."""

from __future__ import annotations

import abc
import copy
import gc
import pickle

import pytest
import torch
from mmengine.model import BaseModel, ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from torch import nn

from mmlckd.distillers import LipschitzDistiller

LOSSES = dict(kd=dict(type='mmlckd.AttentionTransferLoss', loss_weight=1.0))


class Small(BaseModel):
    """A student of two layers, whose loss is the mean of its map."""

    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        output = self.last(self.conv(inputs))
        return dict(loss=output.square().mean()) if mode == 'loss' else output


def distil(student, mixin=LipschitzDistiller, **fields):
    fields = dict(dict(teacher=dict(model=Small(8)), taps=['conv'], losses=LOSSES), **fields)
    return mixin(student=student, **fields)


def step(model):
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    return model.train().train_step(dict(inputs=torch.randn(2, 3, 8, 8)), optimizer)


# Module level, so that pickles find them


class Crowded(Small):
    """Children, attributes and properties under names that a distiller would like to have."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.Linear(1, 1)
        self.student = nn.Linear(1, 1)
        self.entries = [1, 2]
        self.losses = 'mine'
        self.connectors = nn.Identity()
        self.mixin = 'mine too'

    @property
    def checked(self):
        return 'a property'


class Overriding(Small):
    """Every method of a model of its own."""

    def __init__(self):
        super().__init__()
        self.called = []

    def train_step(self, data, optim_wrapper):
        self.called.append('train_step')
        return super().train_step(data, optim_wrapper)

    def val_step(self, data):
        self.called.append('val_step')
        return 'predictions'

    def parse_losses(self, losses):
        self.called.append('parse_losses')
        return super().parse_losses(losses)

    def state_dict(self, *args, **kwargs):
        return {key: value for key, value in super().state_dict(*args, **kwargs).items() if key != 'last.bias'}

    def _load_from_state_dict(self, state_dict, *args):
        state_dict.setdefault('last.bias', torch.full((1,), 7.0))
        return super()._load_from_state_dict(state_dict, *args)

    def __getattr__(self, name):
        return 'made up' if name == 'anything' else super().__getattr__(name)


class Slotted(Small):
    __slots__ = ('cache',)


class Copying(Small):
    """Makes copies of itself by the usual idiom."""

    def __deepcopy__(self, memo):
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        twin.copied = True
        return twin


class Meta(abc.ABCMeta):
    pass


class OfAMetaclass(Small, metaclass=Meta):
    pass


class Selective(Small):
    """Leaves a part of itself out of copies and pickles."""

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != 'scratch'}


KINDS = [Small, Crowded, Overriding, Slotted, Copying, OfAMetaclass, Selective]


@pytest.mark.parametrize('kind', KINDS)
def test_unusual_students_are_trained_copied_and_pickled(kind):
    model = distil(kind())
    assert isinstance(model, kind) and isinstance(model, LipschitzDistiller) and type(type(model)) is type(kind)
    assert 'distiller.loss_kd' in step(model)
    for clone in (copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))):
        twin = clone(model)
        assert type(twin) is type(model) and twin.distiller is not None
        assert all(torch.equal(value, twin.state_dict()[key]) for key, value in model.state_dict().items())
        assert 'distiller.loss_kd' in step(twin)
    average = ExponentialMovingAverage(model, momentum=0.5)
    average.update_parameters(model)
    other = distil(kind())
    other.load_state_dict(model.state_dict(), strict=True)


def test_names_of_the_student_stay_the_students():
    model = distil(Crowded())
    assert isinstance(model.teacher, nn.Linear) and isinstance(model.student, nn.Linear)
    assert (model.entries, model.losses, model.mixin, model.checked) == ([1, 2], 'mine', 'mine too', 'a property')
    assert isinstance(model.connectors, nn.Identity)
    model.entries = [3]
    assert model.entries == [3] and len(model.distiller.entries) == 1
    twin = pickle.loads(pickle.dumps(model))
    assert (twin.mixin, twin.entries) == ('mine too', [3])


def test_overridden_methods_are_the_students():
    model = distil(Overriding(), losses=dict(kd=dict(LOSSES['kd'], max_share=0.5)))
    step(model)
    assert model.called == ['train_step', 'parse_losses', 'parse_losses']  # the rest below a share, then the total
    assert model.val_step(None) == 'predictions' and model.anything == 'made up'
    assert 'last.bias' not in model.state_dict()
    model.load_state_dict(model.state_dict(), strict=True)
    assert model.last.bias.item() == 7.0


def test_what_a_student_leaves_out_of_its_state_is_left_out():
    model = distil(Selective())
    model.scratch = object()
    assert not hasattr(copy.deepcopy(model), 'scratch') and hasattr(model, 'scratch')


@pytest.mark.parametrize('inputs', [[torch.zeros(2, 3, 8, 8)] * 2, (torch.zeros(3, 8, 8),)])
def test_batches_of_views_are_refused(inputs):
    with pytest.raises(ValueError, match=rf'inputs are a {type(inputs).__name__}, and distillation needs one tensor'):
        distil(Small())(inputs, mode='loss')


# Made from built modules, more than once, and by subclasses


def test_two_distillers_over_one_class_share_nothing_but_the_class():
    one, other = distil(Small()), distil(Small(), losses=dict(at=LOSSES['kd']))
    assert type(one) is type(other)
    assert set(one.distiller.losses) == {'kd'} and set(other.distiller.losses) == {'at'}
    assert type(Small()) is Small  # the student's own class is as it was


def test_a_built_student_becomes_the_model():
    student = Small()
    assert distil(student) is student
    with pytest.raises(ValueError, match='student is a DistilledSmall, which is distilled already'):
        distil(student)


def test_a_student_is_left_alone_where_it_cannot_be_distilled():
    student = Small()
    with pytest.raises(ValueError, match='no module'):
        distil(student, taps=['nowhere'])
    assert type(student) is Small and not hasattr(student, 'distiller')


class Doubling(LipschitzDistiller):
    """A user's own distiller, with one more argument."""

    def __new__(cls, factor=2.0, **fields):
        model = super().__new__(cls, **fields)
        model.factor = factor
        return model

    def forward(self, *args, **kwargs):
        result = super().forward(*args, **kwargs)
        if isinstance(result, dict):
            result['distiller.loss_kd'] = result['distiller.loss_kd'] * self.factor
        return result


@pytest.mark.parametrize('clone', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_users_subclass(clone):
    model = distil(Small(), Doubling, factor=3.0)
    assert isinstance(model, Doubling) and isinstance(model, Small)
    twin = clone(model)
    assert isinstance(twin, Doubling) and twin.factor == 3.0
    inputs = torch.randn(2, 3, 8, 8)
    tripled = twin(inputs, mode='loss')['distiller.loss_kd']
    model.factor = 1.0
    assert torch.allclose(tripled, 3 * model(inputs, mode='loss')['distiller.loss_kd'])
    assert not isinstance(distil(Small()), Doubling)


def test_a_distilled_student_lets_go_of_everything():
    import weakref

    model = distil(Small())
    held = [weakref.ref(item) for item in (model, model.distiller, model.distiller.teacher.model)]
    del model
    gc.collect()
    assert [reference() for reference in held] == [None] * 3


# What cannot be distilled


class NamesThings(Small):
    distiller = 'mine'


class OtherBatches(BaseModel):
    def forward(self, images, mode='predict'):
        return images


class Bypassing(Small):
    def train_step(self, data, optim_wrapper):
        loss = (
            super().forward(data['inputs'], mode='loss')
            if type(self) is Small
            else Small.forward(self, **data, mode='loss')
        )
        return loss


@pytest.mark.parametrize(
    'student, message',
    [
        (NamesThings, 'student NamesThings has a module or attribute called `distiller` already: rename it'),
        (nn.Linear(1, 1), r'student is a Linear, no OpenMMLab model: give one whose class derives from'),
        (OtherBatches, r'student OtherBatches takes a batch as forward\(images, mode\): distillation needs one that'),
        ('a.py', "student is 'a.py': give LipschitzDistiller a dict or a built module"),
        (None, 'student is None: give LipschitzDistiller a dict or a built module'),
    ],
)
def test_students_that_are_refused(student, message):
    with pytest.raises(ValueError, match=message):
        distil(student() if isinstance(student, type) else student)


def test_a_training_step_without_distillation_is_refused():
    with pytest.raises(
        ValueError, match=r"student Bypassing has a train_step that does not call forward\(mode='loss'\)"
    ):
        step(distil(Bypassing()))


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(teacher=None), "lacks the field 'teacher': add it"),
        (dict(losses=None), "lacks the field 'losses': add it"),
        (dict(losses=[LOSSES['kd']]), 'losses is .*: give LipschitzDistiller a dict of dicts'),
        (dict(losses=dict(kd='mmlckd.LogitsKDLoss')), "losses.kd is 'mmlckd.LogitsKDLoss': give a dict or None"),
        (dict(losses=dict(kd=None)), 'losses has no entry, and the student would learn alone'),
        (dict(losses=dict(kd=dict(LOSSES['kd'], max_share='half'))), "losses.kd.max_share is 'half'"),
        (dict(losses=dict(kd=dict(LOSSES['kd'], max_share=True))), 'losses.kd.max_share is True'),
        (dict(input_shape=[3, 0, 8]), r'input_shape is \[3, 0, 8\]: give \(C, H, W\)'),
        (dict(input_shape=64), 'input_shape is 64: give LipschitzDistiller a list of whole numbers'),
        (dict(input_shape=[3, 8, None]), r'input_shape\[2\] is None: give a whole number'),
        (dict(teacher=3), 'teacher is 3: give LipschitzDistiller a string, a dict'),
        (dict(teacher=['a.py']), r"teacher is \['a.py'\]: give LipschitzDistiller a string, a dict"),
        (dict(taps=7), 'taps is 7: give LipschitzDistiller a string, a list'),
        (dict(taps=[7]), r'taps\[0\] is 7: give a string, a dict'),
        (dict(taps=[dict(module='conv', call='last')]), r"taps\[0\].call is 'last': give a whole number"),
        (dict(taps=[dict(module='conv', index='first')]), r"taps\[0\].index is 'first': give a whole number"),
        (dict(taps=[dict(module='conv', grid=7)]), r'taps\[0\].grid is 7: give a list of 2 whole numbers'),
    ],
)
def test_fields_of_a_wrong_type(fields, message):
    with pytest.raises(ValueError, match=message):
        distil(Small(), **fields)


def test_a_built_teacher_is_frozen_and_keeps_its_weights():
    teacher = Small(8)
    before = copy.deepcopy(teacher.state_dict())
    model = distil(Small(), teacher=teacher)
    step(model)
    assert model.distiller.teacher.model is teacher and not any(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
