"""Teacher and student that prepare images differently."""

from __future__ import annotations

import copy

import pytest
import torch

from mmlckd.registry import MODELS
from mmlckd.taps import InputAdapter, Preprocessing


def detection(**fields):
    __import__('mmdet.models')
    return MODELS.build(dict(type='mmdet.DetDataPreprocessor', pad_size_divisor=32, **fields))


def classification(**fields):
    __import__('mmpretrain.models')
    return MODELS.build(dict(type='mmpretrain.ClsDataPreprocessor', **fields))


MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@pytest.mark.parametrize(
    'other',
    [
        dict(mean=[123.6751, 116.28, 103.53], std=STD),  # equal to three decimals
        dict(mean=MEAN, std=[58.395, 57.12, 57.3752]),
        dict(mean=MEAN, std=STD, bgr_to_rgb=True),
    ],
)
def test_a_small_difference_is_a_difference(other):
    ours = detection(mean=MEAN, std=STD)
    with pytest.raises(ValueError, match='DetDataPreprocessor pads them') as refusal:
        InputAdapter(ours, detection(**other))
    different, same = (str(Preprocessing.of(module)) for module in (detection(**other), ours))
    assert different != same and different in str(refusal.value) and same in str(refusal.value)


def test_it_is_translated_where_nothing_is_padded():
    ours, theirs = classification(mean=MEAN, std=STD), classification(mean=[123.67, 116.28, 103.53], std=STD)
    pixels = torch.full((1, 3, 4, 4), 100.0)
    adapted = InputAdapter(ours, theirs)(ours(dict(inputs=pixels))['inputs'], None)
    assert torch.allclose(adapted, theirs(dict(inputs=pixels))['inputs'], atol=1e-6)
    assert not torch.equal(adapted, ours(dict(inputs=pixels))['inputs'])


@pytest.mark.parametrize(
    'one, other',
    [
        ({}, dict(mean=[0.0] * 3, std=[1.0] * 3)),  # nothing normalised, in two ways
        (dict(mean=[7.0] * 3, std=[2.0] * 3), dict(mean=[7.0] * 3, std=[2.0] * 3, pad_value=3)),
    ],
)
def test_what_is_equal_is_handed_on_as_it_is(one, other):
    inputs = torch.randn(2, 3, 4, 4)
    assert InputAdapter(detection(**one), detection(**other))(inputs, None) is inputs


def test_a_gray_student_of_a_padding_host():
    gray, coloured = detection(mean=[7.0], std=[2.0]), detection(mean=[7.0] * 3, std=[2.0] * 3)
    inputs = torch.randn(2, 1, 4, 4)
    assert torch.equal(InputAdapter(gray, coloured, (1, 3))(inputs, None), inputs.repeat(1, 3, 1, 1))
    with pytest.raises(ValueError, match='pads them'):
        InputAdapter(gray, detection(mean=MEAN, std=STD), (1, 3))


def test_a_preprocessor_inside_another_is_found():
    inner = dict(type='mmdet.DetDataPreprocessor', mean=MEAN, std=STD, pad_size_divisor=32)
    wrapped = MODELS.build(dict(type='mmdet.MultiBranchDataPreprocessor', data_preprocessor=copy.deepcopy(inner)))
    InputAdapter(wrapped, MODELS.build(inner))
