"""Local Lipschitz guidance on outputs of two views."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmlckd.losses import LocalLipschitzKDLoss
from mmlckd.taps import Tap


def test_of_known_changes():
    student = torch.tensor(
        [[0.0, 0.0], [1.0, 1.0], [4.0, 0.0], [1.0, 1.0]]
    )  # changes (4, 0) and 0; centred (2, -2) and 0
    teacher = torch.tensor(
        [[5.0, 5.0], [0.0, 0.0], [5.0, 5.0], [2.0, 0.0]]
    )  # changes 0 and (2, 0); centred 0 and (1, -1)
    # image 1: |(2, -2)|^2 / (0 + 1) = 8; image 2: |(-1, 1)|^2 / (2 + 1) = 2/3; their mean
    loss = LocalLipschitzKDLoss(loss_weight=3.0)
    assert loss([student], [teacher]).item() == pytest.approx(3 * (8 + 2 / 3) / 2, rel=1e-6)
    # not centred: |(4, 0)|^2 / (0 + 2) = 8; |(-2, 0)|^2 / (4 + 2) = 2/3
    assert LocalLipschitzKDLoss(center=False, floor=2.0)([student], [teacher]).item() == pytest.approx((8 + 2 / 3) / 2)


def test_identical_networks_and_constant_shifts_cost_nothing():
    outputs = torch.randn(6, 5, dtype=torch.float64)
    loss = LocalLipschitzKDLoss()
    assert loss([outputs], [outputs]).item() == 0
    moved = outputs + torch.randn(1, 5, dtype=torch.float64)  # another bias: the same changes
    assert loss([moved], [outputs]).item() == pytest.approx(0, abs=1e-24)


def test_several_taps_are_summed():
    student, teacher = ([torch.randn(4, 3), torch.randn(4, 2, 2, 2)] for _ in range(2))
    loss = LocalLipschitzKDLoss()
    parts = [loss([ours], [theirs]) for ours, theirs in zip(student, teacher)]
    assert torch.isclose(loss(student, teacher), sum(parts))


def test_an_image_that_is_not_finite_in_either_view_is_left_out():
    student, teacher = torch.randn(2, 6, 4)
    student[4, 0] = torch.nan  # the second view of image 1
    student.requires_grad_()
    loss = LocalLipschitzKDLoss()
    value = loss([student], [teacher])
    value.backward()
    rest = [0, 2, 3, 5]
    assert torch.isclose(value, LocalLipschitzKDLoss()([student[rest]], [teacher[rest]]))
    assert loss.left_out == 1
    assert student.grad.isfinite().all() and (student.grad[[1, 4]] == 0).all() and (student.grad[rest] != 0).any()


def test_statistics_are_changes_over_changes():
    loss = LocalLipschitzKDLoss()
    assert loss.statistics() == {}
    loss.see_views(torch.tensor([2.0, 1.0]))
    student = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, -3.0], [8.0, 0.0]])  # centred changes (3, -3) and (4, -4)
    loss([student], [2 * student])
    values = {name: value.tolist() for name, value in loss.statistics().items()}
    quotient = (3 * 2**0.5 + 4 * 2**0.5) / 3
    assert values == dict(local_student=[pytest.approx(quotient)], local_teacher=[pytest.approx(2 * quotient)])


def quotients(student, teacher, moved, **options):
    """What the loss says of a batch: the student's and the teacher's quotient."""
    loss = LocalLipschitzKDLoss(center=False, **options)
    loss.see_views(torch.tensor(moved))
    loss([student], [teacher])
    return [value.item() for value in loss.statistics().values()]


CHANGES = torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, 1.0]])  # of lengths 5, 10 and 1
BOTH = torch.cat([torch.zeros(3, 2), CHANGES])  # the outputs in both views
MOVED = [1.0, 2.0, 4.0]


@pytest.mark.parametrize('value', [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize('side', [0, 1])
def test_statistics_are_of_the_images_that_the_loss_keeps(value, side):
    sides = [BOTH.clone(), 2 * BOTH]
    sides[side][4, 0] = value  # the second image: not finite, or too large to be squared
    # images 1 and 3 are left: (5 + 1) / (1 + 4), and twice that
    assert quotients(*sides, MOVED) == pytest.approx([6 / 5, 12 / 5], rel=1e-6)


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_an_input_change_that_is_not_finite_poisons_no_statistic(value):
    assert quotients(BOTH, 2 * BOTH, [1.0, value, 4.0]) == pytest.approx([6 / 5, 12 / 5], rel=1e-6)


def test_without_an_image_that_counts_or_moves_statistics_are_0():
    assert quotients(BOTH * torch.nan, BOTH, MOVED) == [0, 0]
    assert quotients(BOTH, BOTH, [0.0, 0.0, 0.0]) == [0, 0]  # outputs may move alone: by dropout


def test_rows_of_one_image_belong_together():
    moved = [1.0, 2.0]
    student = torch.cat([torch.zeros(4, 2), torch.tensor([[3.0, 4.0], [0.0, 5.0], [6.0, 8.0], [0.0, 1.0]])])
    assert quotients(student, student, moved) == pytest.approx([(5 + 5 + 10 + 1) / 3] * 2)
    student[7] = torch.nan  # the second row of the second image: the first image is left
    assert quotients(student, student, moved) == pytest.approx([10.0, 10.0])


def test_rows_that_do_not_belong_to_images_are_refused():
    loss = LocalLipschitzKDLoss()
    loss.see_views(torch.ones(2))
    with pytest.raises(ValueError, match='student map 0 has 10 rows for 2 images in two views: tap a module'):
        loss([torch.zeros(10, 3)], [torch.zeros(10, 3)])  # regions of interest, for example
    loss([torch.zeros(10, 3)], [torch.zeros(10, 3)])  # of another batch, of which nothing is known
    assert loss.statistics() == {}


def test_statistics_of_an_empty_batch_are_0():
    empty = torch.zeros(0, 3)
    assert quotients(empty, empty, []) == [0, 0]


def test_channels_of_a_linear_layer_are_last_in_four_dimensions():
    """As DETR's classes are: (layers, images, queries, classes)."""
    teacher = nn.Sequential(nn.Linear(5, 3), nn.Conv2d(5, 3, 1))
    linear, convolution = (LocalLipschitzKDLoss() for _ in range(2))
    linear.attach(teacher, [Tap('0')])
    convolution.attach(teacher, [Tap('1')])
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 4, 2, 1, 3).unbind()
    value = linear.compare(ours, linear.targets(theirs))
    moved = [feat.movedim(-1, 1) for feat in (ours, theirs)]
    assert value == convolution.compare(moved[0], convolution.targets(moved[1])) > 0


@pytest.mark.parametrize('floor', [0.0, -1.0, float('nan')])
def test_wrong_floor(floor):
    with pytest.raises(ValueError, match='floor is'):
        LocalLipschitzKDLoss(floor=floor)
