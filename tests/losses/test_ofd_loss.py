"""OFD's margins and partial distance against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate
from scipy.stats import norm as normal
from short_run import distillation
from torch import nn

from mmlckd.losses import OFDLoss
from mmlckd.losses.margins import BATCHES, MeasuredMargin, relu_margin
from mmlckd.taps import Tap


def batch_norm(weight, bias):
    module = nn.BatchNorm2d(len(weight))
    module.weight.data, module.bias.data = torch.tensor(weight), torch.tensor(bias)
    return module


def with_margins(margins, **options):
    loss = OFDLoss(**options)
    loss.margins = margins
    return loss


@pytest.mark.parametrize('weight, bias', [(1.0, 0.0), (2.0, 0.5), (-0.7, 0.3), (1.0, -3.0), (0.5, 1.0)])
def test_margin_is_the_mean_of_the_negative_part(weight, bias):
    density = normal(bias, abs(weight)).pdf
    mass = integrate.quad(density, -math.inf, 0)[0]
    mean = integrate.quad(lambda x: x * density(x), -math.inf, 0)[0] / mass
    assert relu_margin(batch_norm([weight], [bias])).item() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize(
    'weight, bias, margin',
    [
        (1.0, 4.0, -3.0),  # Phi(-4) = 3e-5, below 0.001
        (-2.0, 50.0, -6.0),  # Phi underflows
        (0.0, 1.0, 0.0),
        (0.0, -1.0, 0.0),
        (0.0, 0.0, 0.0),  # a constant channel
    ],
)
def test_margin_in_the_tail_and_of_a_constant(weight, bias, margin):
    assert relu_margin(batch_norm([weight], [bias])).item() == margin


def test_loss_is_the_sum_over_entries():
    torch.manual_seed(0)
    shapes, margins = [(2, 3, 4, 4), (2, 2, 2, 2)], [torch.tensor([-0.5, -1.0, 0.0]), torch.tensor([-0.2, -2.0])]
    student, teacher = ([torch.randn(shape, dtype=torch.float64) for shape in shapes] for _ in range(2))
    expected = 0.0
    for weight, ours, theirs, margin in zip((1 / 2, 1), student, teacher, margins):  # 2^-(n-1-i) for n = 2
        for index in torch.cartesian_prod(*map(torch.arange, ours.shape)).tolist():
            s, t = ours[tuple(index)].item(), max(theirs[tuple(index)].item(), margin[index[1]].item())
            expected += weight * (s - t) ** 2 if s > t or t > 0 else 0.0
    assert with_margins(margins, loss_weight=3.0)(student, teacher).item() == pytest.approx(
        3 * expected / 2
    )  # batch of 2


def test_no_gradient_where_both_sides_are_below_zero():
    student = torch.tensor([-2.0, -0.5, 1.0]).view(1, 1, 1, 3).requires_grad_()
    teacher = torch.tensor([-1.0, -1.0, -1.0]).view(1, 1, 1, 3)
    with_margins([torch.tensor([-3.0])])([student], [teacher]).backward()
    # entry 0 lies below the target -1 and is left alone; the others pull by 2 (S - T')
    assert torch.allclose(student.grad.flatten(), torch.tensor([0.0, 1.0, 4.0]))


def test_the_maps_are_left_as_they_are():
    torch.manual_seed(0)
    maps = [torch.randn(5, 3, 2, 2, requires_grad=True), torch.randn(5, 3, 2, 2)]
    copies = [feat.detach().clone() for feat in maps]
    loss = with_margins([torch.zeros(3)])
    first, again = (loss(maps[:1], maps[1:]) for _ in range(2))
    assert all(map(torch.equal, maps, copies)) and first == again
    targets = loss.targets(maps[1:])
    assert targets[0].data_ptr() != maps[1].data_ptr() and loss.compare(maps[:1], targets) == first


def test_gradient_in_parts_of_the_batch():
    torch.manual_seed(0)
    student = torch.randn(5, 3, 2, 2, dtype=torch.float64, requires_grad=True)  # 5 samples: the last part has one
    teacher, margin = torch.randn(5, 3, 2, 2), torch.tensor([-0.5, -1.0, 0.0])
    assert torch.autograd.gradcheck(lambda feat: with_margins([margin])([feat], [teacher]), student)


class Teacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn, self.conv = batch_norm([1.0, 1.0], [0.0, 0.0]), nn.Conv2d(2, 2, 1)


def test_margins_of_the_tapped_batch_norm_or_of_a_named_one():
    feats = torch.zeros(1, 2, 1, 1)
    for loss, tap in ((OFDLoss(), 'bn'), (OFDLoss(margins_from=['bn']), 'conv')):
        loss.attach(Teacher(), [Tap(tap)])
        # S = 0 and T' = max(-9, m) with m = -sqrt(2 / pi): both of 2 channels give 2 / pi
        assert loss([feats], [feats - 9]).item() == pytest.approx(2 * 2 / math.pi, rel=1e-6)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in loss.modules()) and not loss.state_dict()


@pytest.mark.parametrize(
    'arguments, taps, message',
    [
        (
            dict(margins_from=['conv']),
            ['conv'],
            "margins_from has 'conv', which is no affine batch norm of the teacher",
        ),
        (
            dict(margins_from=['none']),
            ['bn'],
            'or leave margins_from out to measure the margins on the first 20 batches',
        ),
        (dict(margins_from=['bn', 'bn']), ['conv'], 'names 2 batch norms for 1 taps'),
    ],
)
def test_wrong_margins(arguments, taps, message):
    with pytest.raises(ValueError, match=message):
        OFDLoss(**arguments).attach(Teacher(), [Tap(tap) for tap in taps])


def test_wrong_maps():
    feats, margin = torch.zeros(1, 2, 2, 2), torch.zeros(2)
    with pytest.raises(ValueError, match='needs equal shapes'):
        with_margins([margin])([feats], [feats[..., :1]])
    with pytest.raises(ValueError, match='1 student maps and 2 teacher maps'):
        with_margins([margin, margin])([feats], [feats, feats])
    with pytest.raises(ValueError, match='2 teacher maps and 1 margins'):
        with_margins([margin])([feats, feats], [feats, feats])
    with pytest.raises(ValueError, match='no teacher is attached'):
        OFDLoss()([feats], [feats])
    with pytest.raises(ValueError, match='loss_weight is -1'):
        OFDLoss(loss_weight=-1)
    with pytest.raises(ValueError, match="map_weights is 'uniform'"):
        OFDLoss(map_weights='uniform')
    with pytest.raises(ValueError, match='map_weights has 1 numbers for 2 maps'):
        with_margins([margin, margin], map_weights=[1.0])([feats, feats], [feats, feats])


@pytest.mark.parametrize(
    'weights, total', [('geometric', 0.5 * 8 + 8), ([1 / 8, 1 / 16], 8 / 8 + 8 / 16), ([0.0, 1.0], 8.0)]
)
def test_map_weights(weights, total):
    # each map has 8 entries at distance 1 from a positive target
    student, teacher = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    loss = with_margins([torch.zeros(2)] * 2, map_weights=weights)
    assert loss([student] * 2, [teacher] * 2).item() == pytest.approx(total)


class Block(nn.Module):
    """A residual block's children, as OpenMMLab's ResNets have them."""

    def __init__(self):
        super().__init__()
        self.bn1, self.bn2, self.relu = (
            batch_norm([1.0, 1.0], [0.0, 0.0]),
            batch_norm([2.0, 2.0], [0.0, 0.0]),
            nn.ReLU(),
        )
        self.conv, self.downsample = nn.Conv2d(2, 2, 1), nn.Sequential(batch_norm([9.0, 9.0], [0.0, 0.0]))


def test_margin_of_a_blocks_sum_is_its_last_batch_norms():
    teacher, feats, loss = nn.Sequential(Block()), torch.zeros(1, 2, 1, 1), OFDLoss()
    loss.attach(teacher, [Tap('0.relu', io='input')])
    # bn2's s = 2: T' = m = -2 sqrt(2 / pi), so both of 2 channels give 4 * 2 / pi
    assert loss([feats], [feats - 99]).item() == pytest.approx(2 * 4 * 2 / math.pi, rel=1e-6)
    # an output beside a batch norm is not that norm's, and an earlier call of the ReLU gets another norm's output
    for tap in (Tap('0.conv'), Tap('0.relu', io='input', call=0)):
        beside = OFDLoss()
        beside.attach(teacher, [tap])
        beside.check_channels([2])
        assert list(beside.measured) == ['0']


# Margins that are measured


def measuring(channels=2, taps=('conv',)):
    loss = OFDLoss()
    loss.attach(Teacher(), [Tap(tap) for tap in taps])
    loss.check_channels([channels] * len(taps))
    return loss.train()


def test_measured_margins_are_the_mean_of_the_negative_values():
    torch.manual_seed(0)
    batches = list(torch.randn(3, 4, 2, 3, 5))
    batches[1][:, 1] = batches[1][:, 1].abs()  # no negative value of that channel in this batch
    batches[2][0, 0, 0, :2] = torch.tensor([float('nan'), -float('inf')])
    margin = MeasuredMargin(2)
    for count in (1, 2, 3):
        found = margin(batches[count - 1])
        values = torch.cat(batches[:count]).transpose(0, 1).flatten(1)
        expected = [values[c][(values[c] < 0) & values[c].isfinite()].mean() for c in (0, 1)]
        torch.testing.assert_close(found, torch.stack(expected))
    torch.testing.assert_close(margin(-torch.ones(1, 2, 1, 1)), (margin.total / margin.count))
    assert MeasuredMargin(2)(torch.ones(1, 2, 1, 1)).tolist() == [0, 0]  # nothing negative


def test_a_normal_teachers_margins_are_what_its_batch_norm_says():
    torch.manual_seed(0)
    margin = MeasuredMargin(2)
    for _ in range(BATCHES):
        found = margin(torch.randn(16, 2, 7, 7) * torch.tensor([1.0, 0.5]).view(2, 1, 1) + 0.2)
    # 15,680 values a channel, at least a third of them negative: 0.6 / sqrt(5000) is 0.9 % of the standard deviation
    torch.testing.assert_close(found, relu_margin(batch_norm([1.0, 0.5], [0.2, 0.2])), rtol=0.05, atol=0)


def test_measuring_ends():
    margin = MeasuredMargin(1)
    for step in range(BATCHES):
        assert margin(torch.full((1, 1, 1, 1), -1.0 - step)).item() == -1 - step / 2  # mean of 1 .. 1 + step
    last = margin(torch.full((1, 1, 1, 1), -99.0))
    assert last.item() == -1 - (BATCHES - 1) / 2


def test_evaluation_moves_no_margin():
    margin = MeasuredMargin(1).eval()
    assert margin(torch.full((1, 1, 1, 1), -3.0)).item() == -3  # nothing measured yet: the batch's own
    assert margin.batches == 0
    margin.train()(torch.full((1, 1, 1, 1), -5.0))
    assert margin.eval()(torch.full((1, 1, 1, 1), -3.0)).item() == -5


def test_measured_margins_go_on_where_a_checkpoint_ends():
    torch.manual_seed(0)
    batches = torch.randn(BATCHES + 2, 2, 2, 3, 3)
    whole, before, after = measuring(), measuring(), measuring()
    student = torch.randn(2, 2, 3, 3)
    expected = [whole([student], [batch]).item() for batch in batches]
    found = [before([student], [batch]).item() for batch in batches[:7]]
    after([student], [batches[9]])  # as a run's first step before a checkpoint is loaded would
    after.load_state_dict(before.state_dict(), strict=True)
    assert found + [after([student], [batch]).item() for batch in batches[7:]] == expected
    assert len(set(expected)) == len(batches)


def test_a_resumed_run_ends_as_the_whole_one(classification, tmp_path, monkeypatch):
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # MMEngine waits where it looks for its place in the data

    def run(folder, iters, resume=False):
        losses = dict(ofd=dict(type='mmlckd.OFDLoss', connectors=True, loss_weight=1e-3))
        runner = distillation(classification, tmp_path / folder, [], iters=iters, resume=resume, losses=losses)
        runner.train()
        return runner.model.state_dict()

    whole = run('whole', 5)
    run('cut', 2)
    resumed = run('cut', 5, resume=tmp_path / 'cut' / 'iter_2.pth')
    assert resumed['distiller.losses.ofd.measured.0.batches'] == 5
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_processes_measure_together(monkeypatch):
    other = MeasuredMargin(1)
    there = torch.full((1, 1, 1, 1), -4.0)
    other(there)
    sums = iter([other.total.clone(), other.count.clone()])
    monkeypatch.setattr('mmlckd.losses.margins.all_reduce', lambda tensor: tensor.add_(next(sums)))
    assert MeasuredMargin(1)(torch.full((1, 1, 1, 1), -2.0)).item() == -3  # of -4 there and -2 here


def test_measured_and_known_margins_stand_side_by_side(monkeypatch):
    said = []
    monkeypatch.setattr('mmlckd.losses.ofd_loss.print_log', lambda message, logger, level: said.append(message))
    loss = measuring(taps=('bn', 'conv'))
    assert said == [
        'OFDLoss measures the margins of conv on the first 20 training batches, since no batch norm of the teacher '
        'gives these maps'
    ]
    feats = torch.full((1, 2, 1, 1), -9.0)
    known, measured = loss.targets([feats, feats])
    assert known.flatten().tolist() == pytest.approx([-math.sqrt(2 / math.pi)] * 2)
    assert measured.flatten().tolist() == [-9, -9]
    assert not loss.warnings(['first', 'second'], [feats.shape] * 2)
    assert not measuring(taps=('bn',)).state_dict()  # as in every version before


def test_a_map_after_its_relu_is_named():
    loss = measuring()
    loss([torch.ones(1, 2, 1, 1)], [torch.ones(1, 2, 1, 1)])
    assert 'map for there has no negative value, so its margins are 0' in loss.warnings(['there'], [(1, 2, 1, 1)])[0]


# Sum and mean over positions


def test_the_mean_is_the_sum_over_the_positions():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    margin = -torch.rand(3)
    total, mean = (with_margins([margin], reduction=name)([student], [teacher]) for name in ('sum', 'mean'))
    assert mean.item() == pytest.approx(total.item() / 20)
    larger = (feat.repeat(1, 1, 3, 2) for feat in (student, teacher))  # the same values on six times the positions
    assert with_margins([margin], reduction='mean')(*([feat] for feat in larger)).item() == pytest.approx(mean.item())
    with pytest.raises(ValueError, match="reduction is 'max': choose 'sum' or 'mean'"):
        OFDLoss(reduction='max')


@pytest.mark.parametrize('reduction', ['sum', 'mean'])
def test_tokens_are_positions(reduction):
    torch.manual_seed(0)
    student, teacher = (torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=i == 0) for i in (0, 1))
    margin = torch.tensor([-0.5, -1.0, 0.0])
    of_maps = with_margins([margin], reduction=reduction)([student], [teacher])
    of_tokens = with_margins([margin], reduction=reduction)([student.flatten(2).mT], [teacher.flatten(2).mT])
    assert of_tokens.item() == pytest.approx(of_maps.item())
    ours, theirs = (torch.autograd.grad(loss, student)[0] for loss in (of_tokens, of_maps))
    torch.testing.assert_close(ours, theirs)
