"""Taps on small networks whose maps are known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmlckd.taps import EverythingTapped, FeatureTap, Tap, dry_run, parse_taps


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


def test_element_of_a_tuple_is_named_by_index():
    model = Twice()
    assert collect(model, Tap('pair', index=0)).shape == (1, 4)
    with pytest.raises(ValueError, match=r"sequence of 2: name one with dict\(module='pair', index"):
        collect(model, Tap('pair'))


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


def test_a_preset_may_stand_in_a_list():
    from mmpretrain.models import ResNet

    model = nn.ModuleDict(dict(backbone=ResNet(18), last=nn.Identity()))
    taps = parse_taps(['resnet_preact', 'last'], model, 'student')
    assert taps == [*parse_taps('resnet_preact', model, 'student'), Tap('last')] and len(taps) == 5
    assert taps[0] == Tap('backbone.layer1.1.relu', io='input')
