"""The two baselines: closed forms, gradients, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from mmlckd.losses import AttentionTransferLoss, FSPLoss

torch.manual_seed(0)


def maps(*shapes, dtype=torch.float64):
    return [
        torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)
    ]


def test_fsp_of_diagonal_maps():
    # two channels, two positions: F_1 = diag(a, b), F_2 = I, so G = diag(a, b) / 2; against zeros the loss is
    # (a^2 + b^2) / 4
    first = torch.tensor([[3.0, 0.0], [0.0, 4.0]]).view(1, 2, 1, 2)
    second = torch.eye(2).view(1, 2, 1, 2)
    assert FSPLoss(loss_weight=2.0)([first, second], [0 * first, second]).item() == pytest.approx(2 * 25 / 4)


def test_fsp_pools_the_larger_map():
    # a map that is constant over 2 x 2 squares is its own pooled version
    (small,) = maps((2, 3, 4, 4))
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    (after,) = maps((2, 5, 4, 4))
    zeros = [0 * small, 0 * after]
    assert FSPLoss()([large, after], zeros).item() == pytest.approx(FSPLoss()([small, after], zeros).item())


def test_attention_of_two_positions():
    # energies (9, 16) and (1, 0), of lengths sqrt(337) and 1
    student, teacher = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2), torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    expected = ((9 / 337**0.5 - 1) ** 2 + (16 / 337**0.5) ** 2) / 2
    assert AttentionTransferLoss(loss_weight=1.0)([student], [teacher]).item() == pytest.approx(expected)


def test_attention_does_not_depend_on_scale_channels_or_size():
    (student,) = maps((2, 3, 4, 4))
    teacher = 7 * torch.cat([student, student], 1)
    assert AttentionTransferLoss()([student], [teacher]).item() == pytest.approx(0, abs=1e-20)
    (larger,) = maps((2, 6, 8, 8))
    assert AttentionTransferLoss()([student], [larger]).item() > 0


@pytest.mark.parametrize('loss', [FSPLoss(), AttentionTransferLoss(loss_weight=1.0)])
def test_gradients_and_a_teacher_without(loss):
    teacher = [feat.requires_grad_() for feat in maps((2, 3, 4, 4), (2, 5, 2, 2))]
    student = [(0.5 * feat.detach() + 1).requires_grad_() for feat in teacher]
    assert torch.autograd.gradcheck(lambda *feats: loss(feats, teacher), student)
    loss(student, teacher).backward()
    assert all(feat.grad is None for feat in teacher) and all(feat.grad.abs().sum() > 0 for feat in student)
    assert loss(teacher, teacher).item() == 0


@pytest.mark.parametrize(
    'loss, student, teacher, message',
    [
        (FSPLoss(), maps((1, 2, 2, 2)), maps((1, 2, 2, 2)), 'at least two'),
        (FSPLoss(), maps((1, 2, 2, 2), (1, 2, 2, 2)), maps((1, 2, 2, 2), (1, 3, 2, 2)), 'connectors=True'),
        (AttentionTransferLoss(), maps((1, 2, 2, 2)), [], 'tap as many modules'),
    ],
)
def test_what_does_not_fit_is_refused(loss, student, teacher, message):
    with pytest.raises(ValueError, match=message):
        loss(student, teacher)


@pytest.mark.parametrize('kind', [FSPLoss, AttentionTransferLoss])
def test_a_negative_weight_is_refused(kind):
    with pytest.raises(ValueError, match='loss_weight is -1'):
        kind(loss_weight=-1)
