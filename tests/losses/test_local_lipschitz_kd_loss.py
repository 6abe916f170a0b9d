"""Local Lipschitz guidance on outputs of two views."""

from __future__ import annotations

import pytest
import torch

from mmlckd.losses import LocalLipschitzKDLoss


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


@pytest.mark.parametrize('floor', [0.0, -1.0, float('nan')])
def test_wrong_floor(floor):
    with pytest.raises(ValueError, match='floor is'):
        LocalLipschitzKDLoss(floor=floor)
