"""Losses of dense prediction against closed forms: channel-wise distributions (CWD) and correlations (PKD)."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mmlckd.losses import CWDLoss, PKDLoss


def maps(seed, shape=(3, 4, 5, 6), dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# CWD


def test_cwd_of_two_positions_in_closed_form():
    """At tau = 2 the teacher's channel is (3/4, 1/4), from values 2 log 3 apart, and the student's (1/2, 1/2)."""
    teacher = torch.tensor([2 * math.log(3.0), 0.0]).view(1, 1, 1, 2)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    loss = CWDLoss(tau=2.0, loss_weight=3.0)([0 * teacher], [teacher])
    assert loss.item() == pytest.approx(3 * 4 * divergence)
    # a second channel that agrees halves the mean over channels
    agrees = torch.ones_like(teacher)
    loss = CWDLoss(tau=2.0)([torch.cat([0 * teacher, agrees], 1)], [torch.cat([teacher, agrees], 1)])
    assert loss.item() == pytest.approx(4 * divergence / 2)


def test_cwd_is_the_authors_sum_over_batch_times_channels():
    student, teacher = maps(0), maps(1)
    flat = [feat.reshape(3 * 4, 5 * 6) / 4 for feat in (student, teacher)]
    expected = F.kl_div(flat[0].log_softmax(1), flat[1].softmax(1), reduction='sum') * 16 / (3 * 4)
    assert CWDLoss(tau=4.0)([student], [teacher]).item() == pytest.approx(expected.item())


def test_cwd_of_tokens_runs_over_tokens():
    student, teacher = maps(0), maps(1)
    tokens = [feat.flatten(2).mT for feat in (student, teacher)]
    assert CWDLoss()([tokens[0]], [tokens[1]]).item() == pytest.approx(CWDLoss()([student], [teacher]).item())


def test_cwd_ignores_an_offset_of_a_channel():
    student = maps(0)
    assert CWDLoss()([student], [student + maps(1, (1, 4, 1, 1))]).item() == pytest.approx(0, abs=1e-12)


# PKD


def test_pkd_is_one_minus_the_correlation():
    student, teacher = maps(0), maps(1)
    entries = 3 * 5 * 6  # batch and positions
    correlations = [
        torch.corrcoef(torch.stack([student[:, c].flatten(), teacher[:, c].flatten()]))[0, 1] for c in range(4)
    ]
    expected = (entries - 1) / entries * sum(1 - r for r in correlations) / 4
    assert PKDLoss(loss_weight=2.0)([student], [teacher]).item() == pytest.approx(2 * expected.item())


def test_pkd_ignores_scale_and_offset_of_each_channel():
    student = maps(0)
    scale, offset = maps(1, (1, 4, 1, 1)).abs() + 0.1, maps(2, (1, 4, 1, 1))
    for factor in (1e-12, 1.0, 1e12):
        assert PKDLoss()([student], [factor * (scale * student + offset)]).item() == pytest.approx(0, abs=1e-12)
    opposite = PKDLoss()([student], [-student])
    assert opposite.item() == pytest.approx(2 * (90 - 1) / 90)  # r = -1 with 3 x 5 x 6 entries


@pytest.mark.parametrize('student_size, teacher_size', [((4, 4), (8, 8)), ((8, 8), (4, 4)), ((4, 8), (8, 4))])
def test_pkd_brings_the_student_to_the_teachers_size(student_size, teacher_size):
    student, teacher = maps(0, (2, 3, *student_size)), maps(1, (2, 3, *teacher_size))
    resized = F.interpolate(student, teacher_size, mode='bilinear')
    assert PKDLoss()([student], [teacher]).item() == pytest.approx(PKDLoss()([resized], [teacher]).item())


def test_pkd_counts_a_constant_channel_as_zero():
    student, teacher = maps(0), maps(1)
    student[:, 1], teacher[:, 1] = 3.7, -0.1
    rest = [feat[:, [0, 2, 3]] for feat in (student, teacher)]
    loss = PKDLoss()([student], [teacher])
    assert loss.item() == pytest.approx(PKDLoss()([rest[0]], [rest[1]]).item() * 3 / 4)  # 0 in one of four channels
    # against a channel that varies, a constant one leaves (m - 1) / m / 2 of it, with m = 90
    teacher[:, 1] = maps(2)[:, 1]
    more = PKDLoss()([student], [teacher]).item() - loss.item()
    assert more == pytest.approx(89 / 90 / 2 / 4)


@pytest.mark.parametrize('loss', [CWDLoss(), PKDLoss()])
def test_gradients_of_the_student_alone(loss):
    student = [maps(0, (2, 3, 4, 4)).requires_grad_(), maps(1, (2, 2, 2, 2)).requires_grad_()]
    teacher = [maps(2, (2, 3, 4, 4)).requires_grad_(), maps(3, (2, 2, 2, 2)).requires_grad_()]
    assert torch.autograd.gradcheck(lambda *feats: loss(feats, teacher), student)
    loss(student, teacher).backward()
    assert all(feat.grad is None for feat in teacher) and all(feat.grad.abs().sum() > 0 for feat in student)
    assert loss(teacher, teacher).item() == 0


@pytest.mark.parametrize(
    'loss, student, teacher, message',
    [
        (CWDLoss(), (2, 3, 4, 4), (2, 3, 2, 2), 'this loss needs equal shapes'),
        (CWDLoss(), (2, 3), (2, 3), r'a tapped map is \(2, 3\): this loss needs maps'),
        (PKDLoss(), (2, 3, 4, 4), (2, 5, 4, 4), 'this loss needs equal channels, so set connectors=True'),
        (PKDLoss(), (2, 3, 4, 4), (2, 16, 3), 'this loss needs equal channels'),
        (PKDLoss(), (2, 9, 3), (2, 16, 3), '9 positions and teacher tokens 16: name their `grid` on the tap'),
    ],
)
def test_what_does_not_fit_is_refused(loss, student, teacher, message):
    with pytest.raises(ValueError, match=message):
        loss([maps(0, student)], [maps(1, teacher)])


@pytest.mark.parametrize('tau', [0, -1.0, math.nan, math.inf])
def test_a_temperature_is_positive(tau):
    with pytest.raises(ValueError, match=f'tau is {tau}: a temperature must be positive'):
        CWDLoss(tau=tau)
