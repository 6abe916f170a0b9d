"""Taps on small networks whose maps are known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmlckd.taps import EverythingTapped, FeatureTap, GridError, Tap, TapError, dry_run, parse_taps


class Twice(nn.Module):
    """Calls one ReLU twice, returns tuples inside, and adds in place after ``first``."""

    def __init__(self, inplace=False):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=inplace)
        self.pair = nn.Identity()
        self.last = nn.Linear(4, 2)
        self.unused = nn.Linear(4, 4)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.relu(self.first(inputs.flatten(1)) - 1)
        x = self.relu(x + 2)
        x, _ = self.pair((x, 'label'))
        y = self.last(x)
        y += 1
        return y


INPUTS = torch.tensor([[1.0, -2.0, 3.0, -4.0]])


def collect(model, tap, **kwargs):
    with FeatureTap(model, [tap], **kwargs) as feats:
        model(INPUTS)
    return feats[tap]


def test_calls_are_told_apart():
    model = Twice()
    first = torch.relu(model.first(INPUTS) - 1)
    assert torch.equal(collect(model, Tap('relu', call=0)), first)
    assert torch.equal(collect(model, Tap('relu')), first + 2)
    assert torch.equal(collect(model, Tap('relu', io='input', call=1)), first + 2)


def test_the_one_tensor_of_a_tuple_is_meant():
    model = Twice()
    assert torch.equal(collect(model, Tap('pair')), collect(model, Tap('pair', index=0)))
    with pytest.raises(ValueError, match='tap pair .index=1. gives a str, not a tensor'):
        collect(model, Tap('pair', index=1))


@pytest.mark.parametrize(
    'value, kinds',
    [
        ((torch.zeros(1, 4), torch.zeros(1, 8, 2, 2)), r'0: one tensor \(1, 4\), 1: one tensor \(1, 8, 2, 2\)'),
        ([torch.zeros(1, 4), 'label', torch.zeros(2)], r'0: one tensor \(1, 4\), 1: a str, 2: one tensor \(2,\)'),
        ((1, (2, 3)), '0: a int, 1: a tuple'),
    ],
)
def test_a_sequence_is_shown_with_the_shapes_of_its_elements(value, kinds):
    with pytest.raises(
        TapError, match=rf"gives a sequence of {len(value)} \({kinds}\): name one with dict\(module='x'"
    ):
        Tap('x').select(value)


def test_hooks_are_gone_afterwards():
    model = Twice()
    collect(model, Tap('relu'))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_forward_ends_at_the_last_tap():
    model, fired = Twice(), []
    model.last.register_forward_hook(lambda *_: fired.append(1))
    tap = Tap('relu')
    with FeatureTap(model, [tap], last_calls={tap: 1}) as feats:
        model(INPUTS)
    assert not fired and feats.calls[tap] == 2
    with pytest.raises(EverythingTapped):  # outside the context manager nothing swallows it
        feats.maps.clear()
        feats.calls.clear()
        feats.last_calls = {tap: 0}
        feats._collect(tap, INPUTS, tap.select)


def test_another_error_passes_through():
    with pytest.raises(RuntimeError), FeatureTap(Twice(), [Tap('relu')]):
        raise RuntimeError


def test_dry_run_reports_shapes_calls_and_overwritten_maps():
    model, taps = Twice(), [Tap('relu'), Tap('last')]
    run = dry_run(model, taps, (4,), 'student')
    assert run.shapes == {taps[0]: (1, 4), taps[1]: (1, 2)}
    assert run.last_calls == {taps[0]: 1, taps[1]: 0}
    assert run.overwritten == [taps[1]]  # y += 1 after `last`
    copied = collect(model, taps[1], copy=run.overwritten)
    assert torch.equal(copied + 1, model(INPUTS))


def test_inplace_relu_whose_input_is_tapped_is_made_out_of_place():
    model = Twice(inplace=True)
    tap = Tap('relu', io='input', call=0)
    dry_run(model, [tap], (4,), 'student')
    assert not model.relu.inplace
    assert torch.equal(collect(model, tap), model.first(INPUTS) - 1)


def test_dry_run_leaves_modes_and_statistics():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)).train()
    model[1].eval()
    network = Wrapped(model)
    dry_run(network, [Tap('body.0')], (4,), 'student')
    assert model[0].training and not model[1].training and model[0].num_batches_tracked == 0


class Wrapped(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.body.forward(inputs)  # not through a call


def test_tap_that_never_fires_names_what_does():
    network = Wrapped(nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(
        ValueError, match='tap body never fires through a call in a forward; modules inside it that do: body.0'
    ):
        dry_run(network, [Tap('body')], (4,), 'student')
    with pytest.raises(ValueError, match="student's tap unused never fires"):
        dry_run(Twice(), [Tap('unused')], (4,), 'student')
    with pytest.raises(ValueError, match='set input_shape'):
        dry_run(Twice(), [Tap('relu')], (5,), 'student')


def test_unknown_module_lists_the_closest():
    with pytest.raises(ValueError, match="the student has no module 'furst' to tap: the closest are 'first'"):
        parse_taps(['furst'], Twice(), 'student')


@pytest.mark.parametrize(
    'spec, message',
    [
        (dict(io='output'), 'give a module path'),
        (dict(module='relu', cal=1), 'not understood'),
        (dict(module='relu', io='inside'), "choose 'input' or 'output'"),
        (dict(module='relu', call=-2), 'count from 0'),
        (7, 'not understood'),
    ],
)
def test_wrong_specs(spec, message):
    with pytest.raises(ValueError, match=message):
        Tap.parse(spec)


def test_grid_lays_tokens_out_and_drops_the_class_token():
    tokens = torch.arange(2 * 5 * 3.0).view(2, 5, 3)  # a class token and 2 x 2 patches
    feat = Tap('x', grid=(2, 2)).select(tokens)
    assert torch.equal(feat[:, :, 0, 1], tokens[:, 2])  # row 0, column 1 is the second patch
    with pytest.raises(ValueError, match='N >= H'):
        Tap('x', grid=(3, 3)).select(tokens)


def rows(count, width=3):
    """Tokens (2, count, width), told apart by their numbers."""
    return torch.arange(count, dtype=torch.float32).view(1, count, 1).expand(2, count, width)


@pytest.mark.parametrize(
    'count, size, grid',
    [
        (196, (224, 224), (14, 14)),
        (197, (224, 224), (14, 14)),  # a class token
        (198, (224, 224), (14, 14)),  # DeiT's two
        (261, (224, 224), (16, 16)),  # DINOv2's class token and four registers, patches of 14 px
        (16 * 24 + 1, (256, 384), (16, 24)),
        (50 * 83 + 1, (800, 1333), (50, 83)),  # rounded down: 1333 / 16 = 83.3
        (50 * 84, (800, 1333), (50, 84)),  # rounded up
        (200 * 334, (800, 1333), (200, 334)),  # 1333 / 4 = 333.25, padded
        (4151, None, None),  # 64 * 64 = 4096 is 55 tokens less
        (5, None, (2, 2)),
        (1, None, (1, 1)),
    ],
)
def test_the_grid_follows_the_size_of_the_image(count, size, grid):
    tap = Tap('x', grid='auto')
    if grid is None:
        with pytest.raises(GridError, match='its 4151 tokens are no grid of a square image, with or without class'):
            tap.select(rows(count), size)
        return
    feat = tap.select(rows(count), size)
    assert feat.shape[2:] == grid
    assert feat[0, 0].flatten().tolist() == list(range(count))[count - grid[0] * grid[1] :]


@pytest.mark.parametrize('beside, grid', [((4, 6), (4, 6)), ([6, 4], (6, 4)), ((5, 6), None), ('label', None)])
def test_a_grid_beside_the_tokens_is_theirs(beside, grid):
    tokens, tap = rows(24), Tap('x', grid='auto')
    if grid is None:  # it does not fit the tokens, which are no grid of a square image
        with pytest.raises(GridError):
            tap.select((tokens, beside))
        return
    assert tap.select((tokens, beside)).shape[2:] == grid
    assert Tap('x', index=1, grid='auto').select((rows(6), tokens, beside)).shape[2:] == grid
    assert Tap('x', io='input', grid='auto').select_input((tokens, beside)).shape[2:] == grid


def test_maps_need_no_grid():
    feat = torch.zeros(1, 3, 4, 6)
    assert Tap('x', grid='auto').select(feat) is feat
    with pytest.raises(TapError, match="grid='auto' and gives .1, 3.: tokens"):
        Tap('x', grid='auto').select(torch.zeros(1, 3))


def test_a_preset_may_stand_in_a_list():
    from mmpretrain.models import ResNet

    model = nn.ModuleDict(dict(backbone=ResNet(18), last=nn.Identity()))
    taps = parse_taps(['resnet_preact', 'last'], model, 'student')
    assert taps == [*parse_taps('resnet_preact', model, 'student'), Tap('last')] and len(taps) == 5
    assert taps[0] == Tap('backbone.layer1.1.relu', io='input')
