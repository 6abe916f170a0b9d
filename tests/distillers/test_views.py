"""A second view of each batch: what it is, which losses see it, and what it leaves alone."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import STAGES
from torch import nn

from mmlckd.distillers.views import MixedView, NoisyView
from mmlckd.registry import MODELS

LOCAL = dict(type='mmlckd.LocalLipschitzKDLoss')
MIXED = dict(type='mmlckd.MixedView')


class Sample(dict):
    """What a view asks of a data sample."""


def build(family, losses, taps=STAGES, view=MIXED, student=None):
    torch.manual_seed(0)
    teacher = dict(model=copy.deepcopy(family.teacher))
    spec = dict(student=copy.deepcopy(student or family.student), teacher=teacher, losses=losses, taps=taps, view=view)
    return MODELS.build(dict(type='mmlckd.LipschitzDistiller', **spec))


def step(model, family):
    model.distiller.teacher.load()
    torch.manual_seed(1)
    data = model.data_preprocessor(copy.deepcopy(family.batch), True)
    return data, model(**data, mode='loss')


# The views


def test_a_mixed_view_lies_between_its_image_and_another():
    corners = torch.eye(4).view(4, 4, 1, 1)  # image i is 1 in channel i and 0 elsewhere: a mix shows its parts
    seen = set()
    for _ in range(50):
        mixed = MixedView(max_part=0.5)(corners).flatten(1)
        own = mixed.diagonal()
        assert ((own >= 0.5) & (own <= 1)).all()
        assert torch.allclose(mixed.sum(1), torch.ones(4))
        others = mixed - torch.diag(own)
        assert ((others > 0).sum(1) <= 1).all()  # one other image each, never itself
        seen |= {(i, int(j)) for i, j in enumerate(others.argmax(1)) if others[i].max() > 0}
    assert len(seen) == 12  # every other image comes up


def test_one_image_has_no_other():
    image = torch.randn(1, 3, 4, 4)
    assert torch.equal(MixedView()(image), image)
    assert MixedView()(image[:0]).shape == (0, 3, 4, 4)


@pytest.mark.parametrize('view', [MixedView(1.0), NoisyView(1.0)])
def test_padding_stays_as_it_is(view):
    inputs = torch.randn(2, 3, 6, 6)
    inputs[0, :, 4:], inputs[1, :, :, 3:] = 0, 0  # images of 4 x 6 and 6 x 3, padded
    samples = [Sample(img_shape=(4, 6)), Sample(img_shape=(6, 3))]
    moved = view(inputs, samples) != inputs
    assert not moved[0, :, 4:].any() and not moved[1, :, :, 3:].any()
    assert moved[0, :, :4, :3].all() and moved[1, :, :4, :3].all()
    if isinstance(view, MixedView):  # outside of either image there is nothing to mix
        assert not moved[0, :, :, 3:].any() and not moved[1, :, 4:].any()
    assert (view(inputs, [Sample(), Sample()]) != inputs)[:, :, :4, :3].all()  # samples that say nothing of sizes


@pytest.mark.parametrize(
    'divisor, told, inside',
    [
        (1, [(3, 3), (3, 3)], None),  # the files' sizes: torchvision's transforms leave them there
        (1, [(9, 4), (2, 9)], None),
        (1, [(6, 4), (2, 6)], [(6, 4), (2, 6)]),
        (4, [(5, 4), (2, 5)], None),  # padded to 8, and the batch has 6
        (3, [(5, 4), (2, 5)], [(5, 4), (2, 5)]),
    ],
)
def test_sizes_that_do_not_fit_a_batch_of_classifiers_are_no_padding(divisor, told, inside):
    view = NoisyView(1.0)
    view.watch(MODELS.build(dict(type='mmpretrain.ClsDataPreprocessor', pad_size_divisor=divisor)))
    inputs = torch.randn(2, 3, 6, 6)
    moved = view(inputs, [Sample(img_shape=shape) for shape in told]) != inputs
    for image, (height, width) in zip(moved, inside or [(6, 6), (6, 6)]):
        assert image[:, :height, :width].all() and image.sum() == 3 * height * width


@pytest.mark.parametrize(
    'kind, options', [(MixedView, dict(max_part=0)), (MixedView, dict(max_part=1.5)), (NoisyView, dict(std=-1))]
)
def test_wrong_views(kind, options):
    with pytest.raises(ValueError, match=f'{next(iter(options))} is'):
        kind(**options)


@pytest.mark.parametrize(
    'samples', [torch.tensor([1, 0]), [1, 0], [object(), object()], None, dict(labels=[1, 0]), (torch.zeros(()),) * 2]
)
def test_samples_that_tell_no_size(samples):
    inputs = torch.randn(2, 3, 4, 4)
    for view in (MixedView(1.0), NoisyView(1.0)):
        assert (view(inputs, samples) != inputs).flatten(1).any(1).all()


class Shifting(nn.Module):
    """A user's view: what it returns is worked out by ``how``, from a batch of two images."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, inputs, data_samples):
        return HOW[self.how](inputs)


HOW = {
    'like its input': lambda inputs: inputs + 1,
    'the batch itself': lambda inputs: inputs,
    'smaller': lambda inputs: inputs[..., 1:],
    'fewer': lambda inputs: inputs[:1],
    'flat': lambda inputs: inputs.flatten(1),
    'double': lambda inputs: inputs.double(),
    'half': lambda inputs: inputs.half(),
    'whole numbers': lambda inputs: inputs.long(),
    'elsewhere': lambda inputs: inputs.to('meta'),
    'an array': lambda inputs: inputs.numpy(),
    'a list': lambda inputs: [inputs, None],
    'nothing': lambda inputs: None,
    'in place': lambda inputs: inputs.add_(1),
    'a part in place': lambda inputs: inputs.clone() + inputs[:, :1].mul_(0),
}


class NotCalled:
    """A registered class that is no view."""


@pytest.fixture
def users_views():
    for kind in (Shifting, NotCalled):
        MODELS.register_module(module=kind)
    yield
    for kind in (Shifting, NotCalled):
        MODELS.module_dict.pop(kind.__name__)


@pytest.mark.parametrize('how', ['like its input', 'the batch itself'])
def test_a_users_view(classification, users_views, how):
    view = dict(type='mmlckd.Shifting', how=how)
    model = build(classification, dict(local=LOCAL), taps=['head.fc'], view=view)
    assert step(model, classification)[1]['distiller.loss_local'].isfinite()


@pytest.mark.parametrize(
    'how, fault',
    [
        ('smaller', r'returns a tensor with shape \(2, 3, 64, 63\) for a batch with shape \(2, 3, 64, 64\)'),
        ('fewer', r'shape \(1, 3, 64, 64\) for a batch'),
        ('flat', r'shape \(2, 12288\) for a batch'),
        ('double', 'dtype torch.float64 for a batch with dtype torch.float32'),
        ('half', 'dtype torch.float16 for a batch'),
        ('whole numbers', 'dtype torch.int64 for a batch'),
        ('elsewhere', 'device meta for a batch with device cpu'),
        ('an array', 'returns a ndarray: let it return a tensor'),
        ('a list', 'returns a list: let it return a tensor'),
        ('nothing', 'returns a NoneType: let it return a tensor'),
        ('in place', 'changed the batch that it is given in place'),
        ('a part in place', 'changed the batch that it is given in place'),
    ],
)
def test_a_view_that_returns_no_batch_like_its_input_is_refused(classification, users_views, how, fault):
    view = dict(type='mmlckd.Shifting', how=how)
    model = build(classification, dict(local=LOCAL), taps=['head.fc'], view=view)
    with pytest.raises(ValueError, match=f'view Shifting .*{fault}'):
        step(model, classification)


def test_a_view_that_cannot_be_called_is_refused(classification, users_views):
    with pytest.raises(ValueError, match='view is a NotCalled, which cannot be called'):
        build(classification, dict(local=LOCAL), taps=['head.fc'], view=dict(type='mmlckd.NotCalled'))


# The losses


def test_each_loss_sees_the_views_it_asks_for(classification):
    kd = dict(type='mmlckd.LogitsKDLoss')
    losses = dict(first=kd, second=dict(kd, views='second'), both=dict(kd, views='both'), local=LOCAL)
    model = build(classification, losses, taps=['head.fc']).eval()
    seen = {}
    for network, side in ((model, 'student'), (model.distiller.teacher.model, 'teacher')):
        network.head.fc.register_forward_hook(lambda m, a, out, side=side: seen.setdefault(side, []).append(out))
    _, terms = step(model, classification)
    student, teacher = ([seen[side][0], seen[side][1]] for side in ('student', 'teacher'))
    value = {name: terms[f'distiller.loss_{name}'] for name in losses}
    loss_of = model.distiller.losses
    assert torch.isclose(value['first'], loss_of['first'](student[0], teacher[0]))
    assert torch.isclose(value['second'], loss_of['second'](student[1], teacher[1]))
    assert torch.isclose(value['both'], (value['first'] + value['second']) / 2)  # equally many images
    assert torch.isclose(value['local'], loss_of['local']([torch.cat(student)], [torch.cat(teacher)]))
    assert not torch.equal(student[0], student[1])


def test_the_students_own_loss_sees_the_first_view_only(family):
    """Its own losses are those of a model without a second view; running statistics see both."""
    attention = dict(type='mmlckd.AttentionTransferLoss')
    student = copy.deepcopy(family.student)
    if family.name == 'segmentation':
        student.decode_head.dropout_ratio = student.auxiliary_head.dropout_ratio = 0.0
    models, terms = [], []
    for view, views in ((None, 'first'), (MIXED, 'second')):
        model = build(family, dict(at=dict(attention, views=views)), view=view, student=student).train()
        draw = model.distiller.views_of
        model.distiller.views_of = lambda *args, draw=draw: [draw(*args), torch.manual_seed(2)][0]
        models.append(model)
        terms.append(step(model, family)[1])
    own = [{name: value for name, value in each.items() if not name.startswith('distiller.')} for each in terms]
    assert own[0].keys() == own[1].keys()
    for name, value in own[0].items():
        pairs = zip(value, own[1][name]) if isinstance(value, list) else [(value, own[1][name])]
        assert all(torch.equal(*map(torch.as_tensor, pair)) for pair in pairs)
    counts = [model.backbone.layer4[-1].bn2.num_batches_tracked.item() for model in models]
    assert counts == [1, 2]


def test_the_second_forward_ends_at_the_deepest_tap_that_is_looked_at(classification):
    losses = dict(
        local=dict(LOCAL, center=False, connectors=True, taps=STAGES[:2]), kd=dict(type='mmlckd.LogitsKDLoss')
    )
    model = build(classification, losses, taps=['head.fc']).train()
    fired = {}
    for network, side in ((model, 'student'), (model.distiller.teacher.model, 'teacher')):
        for path in ('backbone.layer2', 'backbone.layer3'):
            key = (side, path)
            network.get_submodule(path).register_forward_hook(
                lambda *_, key=key: fired.update({key: 1 + fired.get(key, 0)})
            )
    step(model, classification)
    assert {key[1]: count for key, count in fired.items() if key[0] == 'student'} == {
        'backbone.layer2': 2,
        'backbone.layer3': 1,
    }
    assert fired['teacher', 'backbone.layer3'] == 1


def test_quotients_are_per_pixel_value(classification):
    model = build(classification, dict(local=LOCAL), taps=['head.fc']).eval()
    views = []
    draw = model.distiller.views_of
    model.distiller.views_of = lambda *args: views.extend(draw(*args)) or views
    logits = []
    model.head.fc.register_forward_hook(lambda module, args, output: logits.append(output.detach()))
    step(model, classification)
    change = (views[1] - views[0]) * 60  # the preprocessor's standard deviation
    quotients = (logits[1] - logits[0]).sub((logits[1] - logits[0]).mean(1, keepdim=True)).norm(dim=1)
    expected = quotients.sum() / change.flatten(1).norm(dim=1).sum()
    found = model.distiller.entries[0].statistics()['local_student']
    assert torch.allclose(found, expected.view(1), rtol=1e-4)


def test_gradient_of_the_guidance_reaches_every_family(family):
    losses = dict(local=dict(LOCAL, center=False, connectors=True))
    model = build(family, losses).train()
    _, terms = step(model, family)
    terms['distiller.loss_local'].backward()
    assert next(model.backbone.layer1.parameters()).grad.norm() > 0
    assert all(parameter.grad is None for parameter in model.distiller.teacher.model.parameters())


def test_a_connectors_bias_cancels(classification):
    losses = dict(local=dict(LOCAL, center=False, connectors=True))
    model = build(classification, losses).eval()
    values = []
    for bias in (0.0, 5.0):
        for connector in model.distiller.connectors.values():
            connector[1].bias.data.fill_(bias)
        values.append(step(model, classification)[1]['distiller.loss_local'])
    assert torch.isclose(*values, rtol=1e-4)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(losses=dict(local=LOCAL), view=None), 'losses.local looks at a second view, and there is none'),
        (dict(losses=dict(kd=dict(type='mmlckd.LogitsKDLoss', views='third'))), "losses.kd.views is 'third': choose"),
        (dict(losses=dict(local=dict(LOCAL, views='first'))), "losses.local.views is 'first'.*needs both"),
        (dict(losses=dict(kd=dict(type='mmlckd.LogitsKDLoss'))), 'view is set, and no loss looks at the second view'),
    ],
)
def test_wrong_fields_are_named(classification, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(classification, **{'taps': ['head.fc'], **arguments})


def test_views_of_losses_from_elsewhere(classification, monkeypatch):
    monkeypatch.setattr('mmlckd.losses.AttentionTransferLoss.views', 'two', raising=False)
    with pytest.raises(ValueError, match="AttentionTransferLoss.views is 'two': choose one of 'first', 'second'"):
        build(classification, dict(at=dict(type='mmlckd.AttentionTransferLoss')))
    monkeypatch.setattr(nn.MSELoss, 'views', 2, raising=False)  # of a plain module, which means something else by it
    model = build(classification, dict(outside=dict(type=nn.MSELoss)), view=None)
    assert model.distiller.entries[0].views == 'first'


@pytest.mark.parametrize('views', ['second', 'both'])
def test_a_loss_of_labels_cannot_look_at_the_second_view(classification, views):
    model = build(classification, dict(dkd=dict(type='mmlckd.DKDLoss', views=views)), taps=['head.fc']).eval()
    with pytest.raises(ValueError, match='take LogitsKDLoss, which needs no labels'):
        step(model, classification)
