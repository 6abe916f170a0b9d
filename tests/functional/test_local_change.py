"""Changes between two views, against their definitions."""

from __future__ import annotations

import pytest
import torch

from mmlckd.functional import output_change, relative_change_error


def test_change_is_second_minus_first():
    outputs = torch.tensor([[1.0, 2.0], [0.0, 0.0], [4.0, 1.0], [1.0, 3.0]])
    assert torch.equal(output_change(outputs), torch.tensor([[3.0, -1.0], [1.0, 3.0]]))
    # their means over the channels are 1 and 2
    assert torch.equal(output_change(outputs, center=True), torch.tensor([[2.0, -2.0], [-1.0, 1.0]]))


@pytest.mark.parametrize('shape, dim', [((6, 5), 1), ((6, 5, 3, 2), 1), ((6, 7, 5), 2)])
def test_a_shift_of_all_classes_is_no_change(shape, dim):
    outputs = torch.randn(shape, dtype=torch.float64)
    shift = torch.randn_like(outputs.narrow(dim, 0, 1))
    assert torch.allclose(output_change(outputs + shift, center=True), output_change(outputs, center=True), atol=1e-12)


def test_half_precision_is_subtracted_at_full_precision():
    outputs = torch.tensor([[1.0], [1.0009765625]], dtype=torch.float16)  # 1 + 2^-10, the next number of float16
    assert output_change(outputs).dtype == torch.float32 and output_change(outputs).item() == 2**-10


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize('shape', [(3,), (3, 2, 2)])
def test_an_empty_batch_has_the_precision_of_any_other(dtype, shape):
    full, empty = (output_change(torch.zeros(count, *shape, dtype=dtype), center=True) for count in (4, 0))
    assert empty.dtype == full.dtype and empty.shape == (0, *shape)


def test_an_odd_batch_is_refused():
    with pytest.raises(ValueError, match='two views of one batch are an even number'):
        output_change(torch.zeros(3, 2))


def test_error_of_known_changes():
    student, teacher = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    # |(3, -4)|^2 / (16 + 9) = 1, and nothing over the floor
    assert relative_change_error(student, teacher, floor=9.0).tolist() == [1.0, 0.0]


@pytest.mark.parametrize('shape, dim', [((2, 5, 3, 2), 1), ((2, 7, 5), 2)])
def test_maps_and_tokens_are_averaged_over_positions(shape, dim):
    student, teacher = torch.randn(2, *shape, dtype=torch.float64)
    error = relative_change_error(student, teacher)
    ours, theirs = (change.movedim(dim, -1).reshape(2, -1, 5) for change in (student, teacher))
    for i in range(2):
        terms = [(s - t).norm() ** 2 / (t.norm() ** 2 + 1) for s, t in zip(ours[i], theirs[i])]
        assert error[i].item() == pytest.approx(sum(terms).item() / len(terms), rel=1e-12)


@pytest.mark.parametrize('shape', [(4, 3), (4, 3, 2, 2), (4, 5, 3)])
def test_gradient(shape):
    outputs = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    teacher = output_change(torch.randn(shape, dtype=torch.float64), center=True)
    assert torch.autograd.gradcheck(lambda x: relative_change_error(output_change(x, True), teacher), outputs)


def test_the_teacher_gets_no_gradient():
    student, teacher = torch.randn(2, 2, 3, requires_grad=True).unbind()
    relative_change_error(student.detach().requires_grad_(), teacher).sum().backward()
    with pytest.raises(RuntimeError):  # nothing connects the error to the teacher's change
        torch.autograd.grad(relative_change_error(student.detach(), teacher).sum(), teacher)
