from __future__ import annotations

import math

import pytest
import torch

from mmlckd.losses import LogitsKDLoss


def test_two_classes_in_closed_form():
    """Softened by tau = 2: teacher (3/4, 1/4) from logits 2 log 3 apart, student (1/2, 1/2)."""
    teacher, student = torch.tensor([[2 * math.log(3.0), 0.0]]), torch.zeros(1, 2)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert LogitsKDLoss(tau=2.0, loss_weight=0.5)(student, teacher).item() == pytest.approx(0.5 * 4 * divergence)


def test_mean_over_samples_and_positions():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 3, 4)
    flat = [logits.permute(0, 2, 3, 1).reshape(-1, 5) for logits in (student, teacher)]
    assert torch.allclose(LogitsKDLoss()(student, teacher), LogitsKDLoss()(*flat))


def test_equal_logits_give_zero_and_sequences_add():
    logits, other = torch.randn(2, 3, 7)
    assert LogitsKDLoss()(logits, logits + 5).item() == pytest.approx(0, abs=1e-6)  # a shift is no difference
    pair = LogitsKDLoss()([logits, other], [other, logits])
    assert torch.allclose(pair, LogitsKDLoss()(logits, other) + LogitsKDLoss()(other, logits))


def test_gradient_reaches_the_student_only_and_half_precision_is_widened():
    student, teacher = torch.randn(3, 4).half().requires_grad_(), torch.randn(3, 4).requires_grad_()
    loss = LogitsKDLoss()(student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32 and student.grad.norm() > 0 and teacher.grad is None


@pytest.mark.parametrize('arguments', [dict(tau=0), dict(loss_weight=-1)])
def test_wrong_options(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        LogitsKDLoss(**arguments)


def test_wrong_logits():
    with pytest.raises(ValueError, match=r'student map 0 is \(2, 3\) and the teacher.s \(2, 4\)'):
        LogitsKDLoss()(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match='1 student maps and 2 teacher maps'):
        LogitsKDLoss()([torch.zeros(2, 3)], [torch.zeros(2, 3)] * 2)
