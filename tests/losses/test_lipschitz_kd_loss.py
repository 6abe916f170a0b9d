"""The Lipschitz loss against its equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmlckd.functional import transmitting_norm
from mmlckd.losses import LipschitzKDLoss

SHAPES = [(3, 8, 16, 16), (3, 12, 8, 8), (3, 16, 4, 4), (3, 20, 2, 2)]


def maps(seed, shapes=SHAPES, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1).requires_grad_(grad) for shape in shapes
    ]


def authors_norm(feat_in, feat_out):
    feat_in = F.adaptive_avg_pool2d(feat_in, feat_out.shape[2:]).flatten(2)
    matrix = torch.bmm(feat_in, feat_out.flatten(2).mT) / feat_in.shape[2]
    gram, vector = matrix @ matrix.mT, torch.ones(len(matrix), matrix.shape[1], 1, dtype=matrix.dtype)
    for _ in range(50):
        vector = F.normalize(gram @ vector, dim=1)
    return (vector.mT @ gram @ vector).flatten().sqrt()


@pytest.mark.parametrize('count, weights', [(2, [1 / 2]), (3, [1 / 4, 1 / 2]), (4, [1 / 8, 1 / 4, 1 / 2])])
def test_absolute_distance_is_the_authors_loss(count, weights):
    student, teacher = maps(0)[:count], maps(1)[:count]
    expected = sum(
        weight * (authors_norm(*student[k : k + 2]) - authors_norm(*teacher[k : k + 2])).square().mean()
        for k, weight in enumerate(weights)
    )
    loss = LipschitzKDLoss(distance='absolute', center=False, pair_weights='geometric')(student, teacher)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    'distance, formula', [('log', lambda s, t: torch.log(s / t) ** 2), ('relative', lambda s, t: ((s - t) / t) ** 2)]
)
def test_scale_free_distances(distance, formula):
    student, teacher = maps(0), maps(1)
    norms = [[transmitting_norm(*feats[k : k + 2], center=True) for k in range(3)] for feats in (student, teacher)]
    expected = sum(formula(s, t).mean() / 3 for s, t in zip(*norms))
    loss = LipschitzKDLoss(loss_weight=2.0, distance=distance, pair_weights='uniform')(student, teacher)
    assert loss.item() == pytest.approx(2 * expected.item())
    scaled = LipschitzKDLoss(loss_weight=2.0, distance=distance, pair_weights='uniform')(
        [10 * feat for feat in student], [10 * feat for feat in teacher]
    )
    assert scaled.item() == pytest.approx(loss.item())


@pytest.mark.parametrize('distance', ['log', 'relative', 'absolute'])
def test_identical_networks_give_zero(distance):
    assert LipschitzKDLoss(distance=distance)(maps(0), maps(0)).item() == 0


def test_gradient_reaches_every_student_map_and_no_teacher_map():
    student, teacher = maps(0, grad=True), maps(1, grad=True)
    LipschitzKDLoss()(student, teacher).backward()
    assert all(feat.grad.norm() > 0 for feat in student)
    assert all(feat.grad is None for feat in teacher)


def test_other_channels_and_sizes_of_the_teacher():
    student, teacher = maps(0), maps(1, [(3, 5, 20, 20), (3, 7, 10, 10), (3, 9, 5, 5), (3, 40, 5, 5)])
    loss = LipschitzKDLoss()
    value = loss(student, teacher).item()
    expected = 0.0
    for k in range(3):
        norms = [transmitting_norm(*feats[k : k + 2], center=True) for feats in (student, teacher)]
        expected += 2.0 ** (k - 3) * (norms[0] / norms[1]).log().square().mean().item()
    assert value == pytest.approx(expected) and value > 0 and loss.left_out == 0  # no sample is masked


def test_gradcheck():
    student, teacher = maps(0, [(1, 3, 4, 4), (1, 4, 2, 2)], grad=True), maps(1, [(1, 3, 4, 4), (1, 4, 2, 2)])
    assert torch.autograd.gradcheck(lambda *feats: LipschitzKDLoss()(feats, teacher), student)


@pytest.mark.parametrize('side', ['student', 'teacher'])
@pytest.mark.parametrize('distance', ['log', 'relative', 'absolute'])
def test_a_dead_sample_is_left_out_of_the_mean(side, distance):
    feats = dict(student=maps(0), teacher=maps(1))
    rest = [[feat[1:] for feat in feats[name]] for name in ('student', 'teacher')]
    expected = LipschitzKDLoss(distance=distance)(*rest)
    for feat in feats[side]:
        feat[0] = 0
    for feat in feats['student']:
        feat.requires_grad_()
    loss = LipschitzKDLoss(distance=distance)(feats['student'], feats['teacher'])
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    assert all((feat.grad[0] == 0).all() and feat.grad.isfinite().all() for feat in feats['student'])


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_teacher_sample_that_is_not_finite_is_left_out(value):
    student, teacher = maps(0, grad=True), maps(1)
    teacher[1][2] = value
    loss = LipschitzKDLoss()(student, teacher)
    loss.backward()
    assert loss.isfinite() and all(feat.grad.isfinite().all() for feat in student)


def test_stays_attached_when_everything_is_masked():
    student = maps(0, grad=True)
    loss = LipschitzKDLoss()(student, [torch.zeros_like(feat) for feat in student])
    loss.backward()
    assert loss.item() == 0 and all((feat.grad == 0).all() for feat in student)


def test_last_norms_are_those_of_the_batch_without_a_graph():
    loss, student = LipschitzKDLoss(), maps(0, grad=True)
    loss(student, maps(1))
    assert len(loss.last_norms) == 3
    assert torch.equal(loss.last_norms[1].student, transmitting_norm(student[1], student[2], center=True))
    assert not loss.last_norms[1].student.requires_grad


def test_centring_by_default_belongs_to_the_scale_free_distances():
    assert LipschitzKDLoss().center and LipschitzKDLoss(distance='relative').center
    assert not LipschitzKDLoss(distance='absolute').center and LipschitzKDLoss(distance='absolute', center=True).center


def test_listed_pair_weights():
    student, teacher = maps(0), maps(1)
    parts = [
        LipschitzKDLoss(pair_weights=[float(k == chosen) for k in range(3)])(student, teacher) for chosen in range(3)
    ]
    loss = LipschitzKDLoss(pair_weights=[1.0, 2.0, 3.0])(student, teacher)
    assert loss.item() == pytest.approx(sum((k + 1) * part.item() for k, part in enumerate(parts)))


def test_half_precision_maps():
    student, teacher = [feat.half() for feat in maps(0)], [feat.bfloat16() for feat in maps(1)]
    loss = LipschitzKDLoss()(student, teacher)
    assert loss.dtype == torch.float32
    # What the rounded values give in float64: norms are exact to some 1e-6 in float32, and log ratios are of the order
    # of 0.1, so their squares are to some 1e-5.
    widened = LipschitzKDLoss()([feat.double() for feat in student], [feat.double() for feat in teacher])
    assert loss.item() == pytest.approx(widened.item(), rel=1e-4)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(distance='l2'), "distance is 'l2': choose one of 'log', 'relative', 'absolute'"),
        (dict(pair_weights='harmonic'), "pair_weights is 'harmonic'"),
        (dict(loss_weight=-1), 'loss_weight is -1'),
        (dict(num_iters=0), 'num_iters is 0'),
    ],
)
def test_wrong_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        LipschitzKDLoss(**arguments)


@pytest.mark.parametrize(
    'student, teacher, message',
    [
        (maps(0), maps(1)[:3], '4 student maps and 3 teacher maps'),
        (maps(0)[:1], maps(1)[:1], 'needs at least two'),
        (maps(0), [feat[:2] for feat in maps(1)], 'a student batch of 3 against a teacher batch of 2'),
    ],
)
def test_wrong_maps(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        LipschitzKDLoss()(student, teacher)
    with pytest.raises(ValueError, match='pair_weights has 2 numbers for 3 pairs'):
        LipschitzKDLoss(pair_weights=[1.0, 2.0])(maps(0), maps(1))
