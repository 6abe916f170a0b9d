"""Losses that are held to a share of the total: numbers that go wrong, and what the caller keeps."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.model import BaseModel

from mmlckd.distillers.max_share import hold_to_shares


class Plain(BaseModel):
    def forward(self, inputs):
        return inputs


def hold(rest, *values):
    """The values of losses held to a half each, beside a rest."""
    losses = dict(loss_rest=torch.tensor(rest), **{f'loss_{i}': torch.tensor(value) for i, value in enumerate(values)})
    held = hold_to_shares(losses, {f'loss_{i}': 0.5 for i in range(len(values))}, Plain().parse_losses)
    return [held[f'loss_{i}'].item() for i in range(len(values))]


# With a share of a half the bound is the rest itself, 0 where that is negative, and none where it is not known.
@pytest.mark.parametrize(
    'rest, other', [(1.0, 1.0), (0.0, 0.0), (-1.0, 0.0), (-math.inf, 0.0), (math.inf, 2.0), (math.nan, 2.0)]
)
@pytest.mark.parametrize('value', [math.inf, -math.inf, math.nan])
def test_a_loss_that_is_not_finite_stays_what_it_is(rest, other, value):
    assert [str(found) for found in hold(rest, 2.0, value)] == [str(other), str(value)]


def test_a_gradient_through_a_share_is_finite_beside_an_infinite_loss():
    weight = torch.tensor(4.0, requires_grad=True)
    losses = dict(loss_rest=torch.tensor(1.0), loss_a=weight.square(), loss_b=torch.tensor(math.inf))
    held = hold_to_shares(losses, dict(loss_a=0.5, loss_b=0.5), Plain().parse_losses)
    held['loss_a'].backward()
    assert weight.grad.item() == 8 / 16  # the derivative 2 w, scaled by the bound 1 over the value 16


def test_the_dict_of_the_caller_stays_as_it_is():
    losses = dict(loss_rest=torch.tensor(1.0), loss_a=torch.tensor(9.0), acc=torch.tensor(3.0))
    before = dict(losses)
    held = hold_to_shares(losses, dict(loss_a=0.5), Plain().parse_losses)
    assert list(held) == list(losses) and held['loss_a'] == 1 and held['acc'] is losses['acc']
    assert all(losses[name] is value for name, value in before.items())
