"""Losses of logits beside plain distillation, against closed forms: DKD and DIST."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmlckd.losses import DISTLoss, DKDLoss, LogitsKDLoss
from mmlckd.taps import Tap


def logits(seed, shape=(4, 5)):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([0, 4, 2, 2])


def divergence(teacher, student):
    return sum(p * math.log(p / q) for p, q in zip(teacher, student))


# DKD


def test_dkd_of_three_classes_in_closed_form():
    """At tau = 1: teacher (1/2, 1/4, 1/4), student (1/4, 1/4, 1/2), and class 0 is the labelled one."""
    teacher, student = (torch.tensor([parts]).log() for parts in ([2.0, 1.0, 1.0], [1.0, 1.0, 2.0]))
    target = divergence((1 / 2, 1 / 2), (1 / 4, 3 / 4))
    others = divergence((1 / 2, 1 / 2), (1 / 3, 2 / 3))
    loss = DKDLoss(tau=1.0, alpha=2.0, beta=5.0, loss_weight=3.0)(student, teacher, torch.tensor([0]))
    assert loss.item() == pytest.approx(3 * (2 * target + 5 * others))
    # at tau = 2, logits twice as large give the same distributions, and the factor is 4
    loss = DKDLoss(tau=2.0, alpha=2.0, beta=5.0)(2 * student, 2 * teacher, torch.tensor([0]))
    assert loss.item() == pytest.approx(4 * (2 * target + 5 * others))


def test_dkd_adds_up_to_plain_distillation():
    """KL = TCKD + (1 - p_target) NCKD, equation 6 of the paper, sample by sample."""
    student, teacher = logits(0), logits(1)
    for i in range(4):
        pair = student[i : i + 1], teacher[i : i + 1]
        rest = 1 - (teacher[i] / 4).softmax(0)[LABELS[i]].item()
        both = DKDLoss(alpha=1.0, beta=rest)(*pair, LABELS[i : i + 1])
        assert both.item() == pytest.approx(LogitsKDLoss()(*pair).item())


def test_dkd_of_far_logits_keeps_its_digits():
    # The other classes alone: two of them at 0 and 2 in the teacher, equal in the student, and a labelled one at 5000.
    teacher, student = torch.tensor([[5000.0, 0.0, 2.0]]), torch.tensor([[5000.0, 1.0, 1.0]])
    ours = torch.tensor([0.0, 2.0]).softmax(0).tolist()
    loss = DKDLoss(tau=1.0, alpha=0.0, beta=1.0)(student, teacher, torch.tensor([0]))
    assert loss.item() == pytest.approx(divergence(ours, (0.5, 0.5)), rel=1e-5)


def sample(**fields):
    return SimpleNamespace(**fields)


def mmpretrain_samples(labels):
    from mmpretrain.structures import DataSample

    return [DataSample().set_gt_label(int(label)) for label in labels]


def test_labels_come_from_tensors_and_data_samples():
    student, teacher = logits(0), logits(1)
    expected = DKDLoss()(student, teacher, LABELS).item()
    samples = mmpretrain_samples(LABELS)
    assert DKDLoss()(student, teacher, samples).item() == expected
    one_hot = F.one_hot(LABELS, 5).float()
    for each, score in zip(samples, one_hot):
        each.set_gt_score(score)  # as a preprocessor with to_onehot leaves them
    assert DKDLoss()(student, teacher, samples).item() == expected
    assert DKDLoss()(student, teacher, [sample(gt_score=score) for score in one_hot]).item() == expected


def test_a_sample_whose_label_is_no_class_is_left_out():
    student, teacher = logits(0).requires_grad_(), logits(1)
    loss = DKDLoss()
    value = loss(student, teacher, torch.tensor([0, -1, 2, 5]))
    value.backward()
    assert value.item() == pytest.approx(DKDLoss()(student[[0, 2]], teacher[[0, 2]], LABELS[[0, 2]]).item())
    assert (student.grad[[1, 3]] == 0).all() and (student.grad[[0, 2]] != 0).any(1).all() and loss.left_out == 2


def mixed():
    """Samples as mmpretrain's preprocessor leaves them after Mixup: the labels of the first images, and mixed
    scores.
    """
    from mmpretrain.models import ClsDataPreprocessor

    augment = dict(augments=dict(type='Mixup', alpha=5.0))
    preprocessor = ClsDataPreprocessor(num_classes=5, to_onehot=True, batch_augments=augment)
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    batch = dict(inputs=list(images), data_samples=mmpretrain_samples([0, 1, 2, 3]))
    torch.manual_seed(1)  # this permutation moves every image
    return preprocessor(batch, training=True)['data_samples']


@pytest.mark.parametrize(
    'samples, message',
    [
        (lambda: None, 'the batch has no data samples and this loss needs one class a sample: take LogitsKDLoss'),
        (mixed, 'the batch has mixed labels .* remove these batch augmentations, or take LogitsKDLoss'),
        (lambda: [sample(gt_score=torch.tensor([0.3, 0.7, 0.0, 0.0, 0.0]))] * 4, 'the batch has mixed labels'),
        (lambda: [sample(gt_sem_seg=0)] * 4, 'sample 0 has no gt_label'),
        (
            lambda: [sample(gt_label=torch.tensor([1, 2]))] * 4,
            r"0 has 2 labels .*: take LogitsKDLoss\(activation='sigmoid'\)",
        ),
        (lambda: torch.rand(4, 5), r'the labels are \(4, 5\) of torch.float32: give integers \(B,\)'),
        (lambda: LABELS[:3], 'a student batch of 4 against a teacher batch of 3'),
    ],
)
def test_labels_that_will_not_do(samples, message):
    with pytest.raises(ValueError, match=message):
        DKDLoss()(logits(0), logits(1), samples())


def test_dkd_refuses_maps_and_a_head_with_a_sigmoid():
    with pytest.raises(ValueError, match=r'DKD needs \(B, K\) with at least two classes'):
        DKDLoss()(logits(0, (4, 5, 2, 2)), logits(1, (4, 5, 2, 2)), LABELS)
    with pytest.raises(ValueError, match='DKD needs'):
        DKDLoss()(logits(0, (4, 1)), logits(1, (4, 1)), LABELS)
    head = nn.Sequential(nn.Linear(3, 5))
    head.loss_module = nn.BCEWithLogitsLoss()
    with pytest.raises(ValueError, match='the head of teacher tap 0 has a sigmoid and DKD needs a softmax'):
        DKDLoss().attach(head, [Tap('0')])


# DIST


def correlation(first, second):
    return torch.corrcoef(torch.stack([first, second]))[0, 1].item()


def test_dist_is_one_minus_the_correlations():
    student, teacher = logits(0), logits(1)
    ours, theirs = (student / 2).softmax(1), (teacher / 2).softmax(1)
    inter = sum(1 - correlation(ours[i], theirs[i]) for i in range(4)) / 4
    intra = sum(1 - correlation(ours[:, k], theirs[:, k]) for k in range(5)) / 5
    loss = DISTLoss(tau=2.0, beta=3.0, gamma=5.0, loss_weight=7.0)(student, teacher)
    assert loss.item() == pytest.approx(
        7 * 4 * (3 * inter + 5 * intra), rel=1e-5
    )  # 1e-8 of lengths of the order of 0.1


def test_dist_of_two_classes_in_closed_form():
    # Two classes: each row of a side is (p, 1 - p), so rows have correlation 1 or -1, by the side of 1/2 that p is on.
    student, teacher = (
        torch.tensor(rows).double().log() for rows in ([[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.7, 0.3]])
    )
    # rows: 1 and -1, distances 0 and 2; columns of two samples too: the student falls and the teacher rises, distance 2
    assert DISTLoss(beta=1.0, gamma=0.0)(student, teacher).item() == pytest.approx(1.0, rel=1e-5)
    assert DISTLoss(beta=0.0, gamma=1.0)(student, teacher).item() == pytest.approx(2.0, rel=1e-5)


def test_dist_of_positions_has_one_row_a_position():
    student, teacher = logits(0, (3, 5, 2, 4)), logits(1, (3, 5, 2, 4))
    flat = [side.movedim(1, -1).reshape(-1, 5) for side in (student, teacher)]
    expected = DISTLoss()(*flat).item()
    assert DISTLoss()(student, teacher).item() == pytest.approx(expected)
    tokens = [side.flatten(2).mT for side in (student, teacher)]
    assert DISTLoss()(*tokens).item() == pytest.approx(expected)


def test_dist_of_a_sigmoid_head_sees_a_shift_of_all_classes():
    student = logits(0)
    assert DISTLoss()(student, student + 5).item() == pytest.approx(0, abs=1e-5)
    assert DISTLoss(activation='sigmoid')(student, student + 5).item() > 1e-3


def test_dist_counts_what_has_no_correlation_as_zero():
    student, teacher = logits(0, (1, 5)), logits(1, (1, 5))
    assert DISTLoss(beta=0.0)(student, teacher).item() == 0  # columns of one row
    student[:] = 2.5
    assert DISTLoss()(student, teacher).item() == 0  # and a row of equal classes
    with pytest.raises(ValueError, match='DIST needs at least two classes'):
        DISTLoss()(logits(0, (4, 1)), logits(1, (4, 1)))


@pytest.mark.parametrize('loss', [DKDLoss(), DISTLoss(tau=2.0), DISTLoss(activation='sigmoid')])
def test_gradients_of_the_student_alone(loss):
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda feat: loss(feat, teacher, LABELS), student)
    loss(student, teacher, LABELS).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    assert loss(teacher, teacher, LABELS).item() == pytest.approx(0, abs=1e-5)  # DIST's 1e-8


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: DKDLoss(alpha=-1), 'alpha is -1: it must not be negative'),
        (lambda: DKDLoss(beta=math.nan), 'beta is nan: give a finite number'),
        (lambda: DISTLoss(gamma=math.inf), 'gamma is inf: give a finite number'),
        (lambda: DISTLoss(tau=0), 'tau is 0: a temperature must be positive'),
        (lambda: DISTLoss(activation='relu'), "activation is 'relu': choose one of 'auto', 'softmax', 'sigmoid'"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()
