"""Maps that are compared as the student gives them, and not formed, against maps that wait and are."""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
from test_lipschitz_distiller import KD, LIPSCHITZ, TAPS, build, wrn
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from mmlckd.distillers.remade import Remade
from mmlckd.functional import AffineMap
from mmlckd.losses import LipschitzKDLoss, OFDLoss
from mmlckd.registry import MODELS
from mmlckd.taps import FeatureTap

LOSSES = dict(lipschitz=dict(LIPSCHITZ, connectors=True), ofd=dict(type='mmlckd.OFDLoss', connectors=True), kd=dict(KD))


@pytest.fixture(autouse=True)
def scope(classification):
    return classification


@pytest.fixture
def batch(classification):
    return dict(inputs=torch.randn(2, 3, 28, 28).double(), data_samples=classification.batch['data_samples'])


def still():
    """A distiller without dropout, in training mode."""
    torch.manual_seed(0)
    student = wrn()
    student['backbone']['dropout'] = 0.0
    model = build(student, losses=copy.deepcopy(LOSSES)).train()
    model.distiller.teacher.load()
    return model.double()


def step(model, batch):
    """The losses of a step, all gradients, and the statistics of the connectors' norms after it."""
    model.zero_grad()
    losses = model(**batch, mode='loss')
    model.parse_losses(losses)[0].backward()
    grads = {name: value.grad for name, value in model.named_parameters()}
    values = {key: value.detach() for key, value in losses.items()}
    return values, grads, dict(model.distiller.connectors.named_buffers())


@pytest.mark.parametrize('owner', ['streams', 'compare'])
def test_the_step_is_that_of_maps_that_wait_and_are_formed(owner, batch, monkeypatch):
    one, other = still(), still()
    results = [step(one, batch)]
    with monkeypatch.context() as patch:
        for kind in (LipschitzKDLoss, OFDLoss):
            if owner == 'streams':
                patch.setattr(kind, 'streams', False)
            else:  # of a user who knows nothing of it
                compare = kind.compare
                loss = next(loss for loss in other.distiller.losses.values() if type(loss) is kind)
                loss.__class__ = type('Mine', (kind,), dict(compare=lambda self, *args, how=compare: how(self, *args)))
        assert not any(entry.streams for entry in other.distiller.entries)
        results.append(step(other, batch))
    assert all(entry.streams for entry in one.distiller.entries if entry.name != 'kd')
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-8)


def test_connected_maps_are_formed_where_a_loss_wants_them_whole(batch):
    seen = {}
    compare = LipschitzKDLoss.compare_early

    def watched(self, feats, targets):
        seen.update({i: type(feat) for i, feat in enumerate(feats) if feat is not None and feat.device.type != 'meta'})
        return compare(self, feats, targets)

    attention = dict(type='mmlckd.AttentionTransferLoss', connectors=True)
    for losses, kind in ((LOSSES, AffineMap), (dict(LOSSES, at=attention), torch.Tensor)):
        torch.manual_seed(0)
        model = build(losses=copy.deepcopy(losses)).train().double()
        model.distiller.teacher.load()
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LipschitzKDLoss, 'compare_early', watched)
            model(**batch, mode='loss')
        assert list(seen.values()) == [kind, kind, torch.Tensor]  # the deepest has 7 x 7 positions, too few to fold


def test_a_target_is_free_when_its_map_has_been_compared(batch):
    model = still()
    targets, alive = [], []
    whole = OFDLoss.targets

    def watched(self, *args):
        found = whole(self, *args)
        targets.extend(weakref.ref(target) for target in found)
        return found

    model.backbone.bn.register_forward_pre_hook(lambda *_: alive.extend(ref() is not None for ref in targets))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OFDLoss, 'targets', watched)
        model(**batch, mode='loss')
        targets.clear(), alive.clear()
        model(**batch, mode='loss')  # the first step keeps nothing either, but for what FirstStep looks at
    assert alive == [False, False, True]  # the deepest map is still to come


def test_a_call_more_than_in_the_dry_run_is_refused(batch):
    model = still()
    norm = model.backbone.bn
    model.backbone.register_forward_hook(lambda module, args, output: norm(torch.ones(2, 64, 7, 7).double()) and None)
    with pytest.raises(ValueError, match=r'backbone\.bn fired 2 times in one forward, and 1 times in the dry run'):
        model(**batch, mode='loss')


class Checkpointed(nn.Module):
    """A block that keeps nothing for its backward pass, and runs its forward again there."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, feat):
        return checkpoint(self.block, feat, use_reentrant=False)


class Frozen(Checkpointed):
    def forward(self, feat):
        with torch.no_grad():
            return self.block(feat)


def test_a_map_inside_a_checkpoint(batch):
    student = wrn()
    student['backbone']['dropout'] = 0.0
    results = []
    for wrap in (False, True):
        torch.manual_seed(0)
        network = MODELS.build(student)
        taps = list(TAPS)
        if wrap:
            network.backbone.layer2[0] = Checkpointed(network.backbone.layer2[0])
            taps[0] = 'backbone.layer2.0.block.bn1'
        model = build(network, losses=copy.deepcopy(LOSSES), taps=dict(student=taps, teacher=TAPS)).train().double()
        model.distiller.teacher.load()
        losses, grads, _ = step(model, batch)
        results.append([losses, list(grads.values())])
    torch.testing.assert_close(*results)


def test_connectors_of_a_frozen_map_learn_all_the_same(batch):
    torch.manual_seed(0)
    network = MODELS.build(wrn())
    network.backbone.layer2[0] = Frozen(network.backbone.layer2[0])
    taps = ['backbone.layer2.0.block.bn1', *TAPS[1:]]
    model = build(network, losses=copy.deepcopy(LOSSES), taps=dict(student=taps, teacher=TAPS)).train().double()
    model.distiller.teacher.load()
    _, grads, _ = step(model, batch)
    found = [value for name, value in grads.items() if name.startswith('distiller.')]
    assert len(found) == 3 * 3 and all(value is not None for value in found)  # DDP wants a gradient of every weight


def test_the_step_is_that_of_maps_that_are_kept(batch, monkeypatch):
    one, other = still(), still()
    results = [[step(one, batch) for _ in range(2)]]  # only the first step keeps all, since it is looked at
    monkeypatch.setattr(Remade, 'of', lambda feat: None)
    results.append([step(other, batch) for _ in range(2)])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


def test_nothing_of_them_is_left_after_the_forward(batch, monkeypatch):
    storages = []
    collect = FeatureTap._collect

    def watched(self, tap, *args):
        collect(self, tap, *args)
        if self.arrive is not None:
            storages.append((str(tap), StorageWeakRef(self.maps[tap].untyped_storage())))

    def alive():
        return [name for name, storage in storages if not storage.expired()]

    model = still()
    step(model, batch)
    monkeypatch.setattr(FeatureTap, '_collect', watched)
    norm = model.backbone.bn
    seen = []
    norm.register_forward_pre_hook(lambda *_: seen.append(alive()))
    losses = model(**batch, mode='loss')
    assert seen[-1] == [TAPS[1]]  # the shallowest is done with, since both maps of its pair have come
    assert alive() == []
    with monkeypatch.context() as patch:
        patch.setattr(Remade, 'of', lambda feat: None)
        storages.clear()
        losses = model(**batch, mode='loss')
    assert alive() == list(TAPS)  # for the connectors' statistics
    del losses


def test_maps_that_another_loss_wants_stay(batch):
    at = dict(type='mmlckd.AttentionTransferLoss', connectors=True)
    ofd = dict(type='mmlckd.OFDLoss', connectors=True)
    torch.manual_seed(0)
    model = build(losses=dict(at=at, ofd=ofd)).train().double()
    model.distiller.teacher.load()
    results = [step(model, batch)[0] for _ in range(2)]
    assert all(value.isfinite() for losses in results for value in losses.values())
