"""Layer norms under a real Runner, without a distiller: read, bounded, saved, averaged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import run_two_ranks
from mmcv.cnn import build_conv_layer
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from small_network import Model, loader
from torch import nn

from mmlckd.analysis import LayerNorms
from mmlckd.checkpoints import read_checkpoint
from mmlckd.hooks import SpectralNormHook
from mmlckd.hooks.loss_statistics import read_statistics
from mmlckd.losses import LipschitzKDLoss
from mmlckd.registry import HOOKS

SHAPES = dict(conv1=(2, 8, 6), conv2=(4, 4, 3), fc=(4,))


def exact(model, name, folded=()):
    """Largest singular value of a layer's matrix, built column by column, and with a folded batch norm where asked."""
    shape = SHAPES[name]
    layer = getattr(model, name).double()
    size = torch.Size(shape).numel()
    columns = layer(torch.eye(size, dtype=torch.float64).view(size, *shape)) - layer(
        torch.zeros(1, *shape, dtype=torch.float64)
    )
    if name in folded:
        columns = columns * (model.bn.weight / (model.bn.running_var + model.bn.eps).sqrt()).double().view(-1, 1, 1)
    return torch.linalg.matrix_norm(columns.flatten(1), 2).item()


def runner(tmp_path, hook, iters=10, wrapper='OptimWrapper', model=None, lr=0.5, **kwargs):
    torch.manual_seed(0)
    model = model or Model()
    return Runner(
        model,
        str(tmp_path),
        loader(4, seed=1),
        train_cfg=dict(by_epoch=True, max_epochs=iters // 2),
        optim_wrapper=dict(type=wrapper, optimizer=dict(type='SGD', lr=lr, momentum=0.9)),
        default_scope='mmengine',
        experiment_name=tmp_path.name,
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='CheckpointHook', interval=1)
        ),
        custom_hooks=[dict(type='mmlckd.SpectralNormHook', **hook)],
        **kwargs,
    )


def test_layers_are_logged_as_they_are(tmp_path):
    run = runner(tmp_path, dict(interval=4, layers='conv|fc', num_iters=50))
    run.train()
    history = json.loads((tmp_path / 'lipschitz.json').read_text())
    assert [reading['iter'] for reading in history] == [1, 4, 8, 10]
    for name, value in history[-1]['layers'].items():
        assert value == pytest.approx(exact(run.model, name), rel=1e-5)
    assert list(history[-1]['layers']) == ['conv1', 'conv2', 'fc']
    scalars = [
        json.loads(line) for path in tmp_path.glob('*/vis_data/scalars.json') for line in path.read_text().splitlines()
    ]
    assert scalars[-1]['lipschitz/layer/conv1'] == pytest.approx(history[-1]['layers']['conv1'])
    assert (tmp_path / 'lipschitz_layers.png').stat().st_size > 10_000 and not (tmp_path / 'lipschitz.png').exists()
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in run.model.modules())


def test_weights_that_do_not_move_have_one_norm_from_the_first_reading_on(tmp_path):
    run = runner(tmp_path, dict(interval=1, layers=['conv', 'fc']), iters=4, lr=0.0)
    run.train()
    for reading in json.loads((tmp_path / 'lipschitz.json').read_text()):
        assert reading['layers'] == pytest.approx({name: exact(run.model, name) for name in SHAPES}, rel=1e-4)


def test_two_iterations_a_reading_follow_the_layers(tmp_path):
    run = runner(tmp_path, dict(interval=1, layers='conv'), iters=20)
    run.train()
    history = json.loads((tmp_path / 'lipschitz.json').read_text())
    for name, value in history[-1]['layers'].items():  # from below, while the weights go on moving
        truth = exact(run.model, name)
        assert 0.98 * truth < value < truth * (1 + 1e-5)


def test_a_folded_batch_norm_counts(tmp_path):
    run = runner(tmp_path, dict(interval=5, layers='conv', num_iters=60, fold_norms=True))
    run.train()
    value = json.loads((tmp_path / 'lipschitz.json').read_text())[-1]['layers']['conv1']
    assert value == pytest.approx(exact(run.model, 'conv1', folded=['conv1']), rel=1e-5)
    assert value != pytest.approx(exact(run.model, 'conv1'), rel=0.01)


@pytest.mark.parametrize('fold_norms', [False, True])
def test_the_bound_holds_at_the_end_and_in_the_averaged_model(tmp_path, fold_norms):
    hook = dict(interval=1, layers=['conv', 'fc'], fold_norms=fold_norms)
    free = runner(tmp_path / 'free', hook)
    free.train()
    folded = ['conv1'] if fold_norms else []
    assert all(exact(free.model, name, folded) > 0.5 for name in SHAPES)  # without the bound
    run = runner(tmp_path / 'bound', dict(hook, max_norm=0.5))
    run.register_hook(
        HOOKS.build(dict(type='EMAHook'))
    )  # In ten iterations it hardly leaves the first reading's weights.
    run.train()
    content = read_checkpoint(str(tmp_path / 'bound' / 'epoch_5.pth'))
    # EMAHook saves the averaged weights as the state, and the trained ones beside it. The first and the last reading
    # are exact. In between two iterations bound the weights as well as they see, and their average is bounded as well.
    for part, bound in (('ema_state_dict', 0.5), ('state_dict', 0.55)):
        model = Model()
        model.load_state_dict(
            {key.removeprefix('module.'): value for key, value in content[part].items() if key != 'steps'}
        )
        for name in SHAPES:
            if part == 'ema_state_dict' or name not in folded:  # a running variance is averaged otherwise than a weight
                assert exact(model, name, folded) <= bound
    layers = json.loads((tmp_path / 'bound' / 'lipschitz.json').read_text())[-1]['layers']
    assert max(layers.values()) == pytest.approx(0.5, rel=2e-3)  # no further than needed


def test_the_bound_holds_in_mixed_precision(tmp_path):
    run = runner(tmp_path, dict(interval=2, layers=['conv', 'fc'], max_norm=0.5), wrapper='mmlckd.CpuAmpOptimWrapper')
    run.train()
    assert all(exact(run.model, name) <= 0.5 for name in SHAPES)


def test_a_resumed_run_has_the_same_readings_and_weights_and_no_vectors_in_its_checkpoint(tmp_path):
    hook = dict(interval=2, layers='conv', max_norm=0.5)
    runner(tmp_path / 'a', hook).train()
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / 'last_checkpoint').write_text(str(tmp_path / 'a' / 'epoch_3.pth'))
    saved = read_checkpoint(str(tmp_path / 'a' / 'epoch_3.pth'))
    assert 'singular_vectors' not in saved
    assert saved['message_hub']['runtime_info']['lipschitz_layer_sizes'] == {
        name: (1, *SHAPES[name]) for name in ('conv1', 'conv2')
    }
    torch.manual_seed(99)
    runner(tmp_path / 'b', hook, resume=True).train()
    one, other = (read_checkpoint(str(tmp_path / name / 'epoch_5.pth')) for name in 'ab')
    assert all(torch.equal(value, other['state_dict'][key]) for key, value in one['state_dict'].items())
    assert json.loads((tmp_path / 'a' / 'lipschitz.json').read_text()) == json.loads(
        (tmp_path / 'b' / 'lipschitz.json').read_text()
    )


def test_a_run_that_is_resumed_with_other_layers_logs_these(tmp_path):
    first = runner(tmp_path, dict(interval=2, layers='conv'), iters=4)
    first.train()
    run = runner(tmp_path, dict(interval=2, layers='conv2|fc'), iters=8, resume=True)
    run.train()
    history = json.loads((tmp_path / 'lipschitz.json').read_text())
    assert [list(reading['layers']) for reading in history] == [['conv1', 'conv2']] * 3 + [['conv2', 'fc']] * 2
    logged = [key for key in run.message_hub.log_scalars if key.startswith('train/lipschitz')]
    assert sorted(logged) == ['train/lipschitz/layer/conv2', 'train/lipschitz/layer/fc']
    assert (tmp_path / 'lipschitz_layers.png').stat().st_size > 10_000


def parametrised(make, layer):
    layer.weight.data *= 10
    return make(layer)


@pytest.mark.parametrize(
    'make',
    [
        # torch 2.0 has the other weight norm only
        lambda: parametrised(
            getattr(nn.utils.parametrizations, 'weight_norm', nn.utils.weight_norm),
            nn.Conv2d(2, 4, 3, stride=2, padding=1),
        ),
        lambda: parametrised(nn.utils.spectral_norm, nn.Conv2d(2, 4, 3, stride=2, padding=1)),
        lambda: build_conv_layer(dict(type='ConvWS'), 2, 4, 3, stride=2, padding=1),
    ],
)
def test_a_norm_that_does_not_follow_its_weight_is_named(make, tmp_path):
    model = Model()
    model.conv1 = make()
    with pytest.raises(
        ValueError, match="max_norm is 0.2 and 'conv1' has norm .* it normalises or parametrises its weight"
    ):
        runner(tmp_path, dict(layers='conv1', max_norm=0.2), model=model).train()


class Shared(BaseModel):
    """Two layers with one weight, and two convolutions before one batch norm."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, inputs, labels, mode='tensor'):
        x = self.b(input=self.a(inputs).relu())
        logits = (self.bn(self.conv1(x)) + self.bn(self.conv2(x))).mean((2, 3))
        return dict(loss=nn.functional.cross_entropy(logits, labels)) if mode == 'loss' else logits


def test_a_shared_weight_is_scaled_once(tmp_path):
    run = runner(
        tmp_path, dict(interval=1, layers=['a', 'b', 'conv'], fold_norms=True, max_norm=0.1), iters=4, model=Shared()
    )
    run.train()
    layers, model = json.loads((tmp_path / 'lipschitz.json').read_text())[-1]['layers'], run.model
    scale = model.bn.weight / (model.bn.running_var + model.bn.eps).sqrt()
    truth = dict(
        a=model.a.weight,
        b=model.b.weight,
        **{name: getattr(model, name).weight.flatten(1) * scale[:, None] for name in ('conv1', 'conv2')},
    )
    assert layers == pytest.approx(
        {name: torch.linalg.matrix_norm(matrix, 2).item() for name, matrix in truth.items()}, rel=1e-4
    )
    for pair in (('a', 'b'), ('conv1', 'conv2')):
        assert max(layers[name] for name in pair) == pytest.approx(0.1, rel=2e-3)  # no further than needed


def test_a_frozen_layer_stays_as_it_is(tmp_path):
    model = Model()
    model.conv1.requires_grad_(False)
    before = model.conv1.weight.clone()
    runner(tmp_path, dict(interval=1, layers='conv', max_norm=0.01), iters=2, model=model).train()
    assert torch.equal(model.conv1.weight, before) and exact(model, 'conv2') < 0.01 < exact(model, 'conv1')


def test_before_a_frozen_batch_norm_the_layer_is_scaled(tmp_path):
    model = Model()
    model.bn.requires_grad_(False)
    runner(tmp_path, dict(interval=1, layers='conv1', fold_norms=True, max_norm=0.1), iters=2, model=model).train()
    assert torch.equal(model.bn.weight, torch.ones(4)) and exact(model, 'conv1', folded=['conv1']) <= 0.1


@pytest.mark.parametrize('norm', [dict(affine=False), dict(track_running_stats=False)])
def test_a_batch_norm_that_is_no_fixed_map_is_not_folded(norm, tmp_path):
    model = Model()
    model.bn = nn.BatchNorm2d(4, **norm)
    runner(tmp_path, dict(interval=1, layers='conv1', fold_norms=True, max_norm=0.5), iters=2, model=model).train()
    reading = json.loads((tmp_path / 'lipschitz.json').read_text())[-1]['layers']['conv1']
    assert reading == pytest.approx(exact(model, 'conv1'), rel=1e-4) and reading <= 0.5


def test_a_batch_norm_behind_an_activation_in_place_is_not_folded():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    )
    norms = LayerNorms(net, '', fold_norms=True)
    with norms.watch():
        net(torch.zeros(2, 2, 3, 3))
    assert norms.folded == {'3': '4'}


def test_an_evaluation_before_the_first_iteration_is_not_watched(tmp_path):
    """A resumed run begins with the evaluation in which it was killed."""
    run = runner(tmp_path, dict(layers='', fold_norms=True), iters=2)
    watching = []

    class Evaluates(Hook):
        priority = 'LOWEST'

        def before_train(self, runner):
            hook = next(hook for hook in runner.hooks if isinstance(hook, SpectralNormHook))
            watching.append(hook._reader.is_watching)

    run.register_hook(Evaluates())
    run.train()
    assert watching == [False] and run.message_hub.get_info('lipschitz_layer_sizes')


def test_layers_that_never_run_are_named(tmp_path, capfd):
    model = Model()
    model.spare = nn.Linear(3, 3)
    runner(tmp_path, dict(layers='spare|fc'), iters=2, model=model).train()
    assert "selects 'spare', not run in the first iteration" in ''.join(capfd.readouterr())
    with pytest.raises(
        ValueError, match="selects 'spare', not run in the first iteration, so that max_norm cannot hold there"
    ):
        runner(tmp_path, dict(layers='spare|fc', max_norm=1.0), iters=2, model=model).train()


def test_readings_are_of_the_samples_that_the_loss_keeps(monkeypatch):
    loss = LipschitzKDLoss()
    feats = [torch.randn(3, 4, 5, 5) for _ in range(3)]
    student = [feat.clone() for feat in feats]
    student[1][0] = 0  # the first sample has norm 0 in both pairs
    student[0] *= 2  # and the others twice the teacher's in the first
    loss(student, feats)
    entry = SimpleNamespace(statistics=loss.statistics)
    monkeypatch.setattr('mmlckd.hooks.loss_statistics.entries_of', lambda model: [entry])
    reading = read_statistics(None)
    assert reading['log_ratio'] == pytest.approx([math.log(2), 0], abs=1e-5)
    assert reading['student'] == pytest.approx([2 * reading['teacher'][0], reading['teacher'][1]], rel=1e-5)
    student[1].zero_()
    loss(student, feats)
    assert read_statistics(None) == dict(student=[0, 0], teacher=[0, 0], log_ratio=[0, 0])  # none is left


def test_statistics_of_a_users_loss(monkeypatch):
    def readings(**statistics):
        entry = SimpleNamespace(name='mine', statistics=lambda: statistics)
        monkeypatch.setattr('mmlckd.hooks.loss_statistics.entries_of', lambda model: [entry, entry])
        return read_statistics(None)

    assert readings(spread=torch.tensor(2.0)) == dict(spread=[2, 2])  # one number needs no dimension
    assert readings(spread=torch.ones(2, 2), count=torch.tensor([3])) == dict(spread=[1] * 8, count=[3, 3])
    for name in ('iter', 'layers', 'my_loss', 'losses'):
        with pytest.raises(ValueError, match=f"losses.mine has a statistic called '{name}'"):
            readings(**{name: torch.ones(1)})


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(interval=0), 'interval is 0'),
        (dict(interval='5'), "interval is '5'"),
        (dict(num_iters=1), 'num_iters is 1: give at least 2'),
        (dict(num_iters=2.5), 'num_iters is 2.5: give SpectralNormHook a whole number, such as 2'),
        (dict(layers=3), 'layers is 3: give SpectralNormHook a string, a list of strings or None'),
        (dict(layers=['conv', None]), r'layers\[1\] is None: give a string'),
        (dict(fold_norms=1), 'fold_norms is 1: give SpectralNormHook True or False'),
        (dict(max_norm=1.0), 'max_norm is 1.0 and layers None'),
        (dict(layers='conv', max_norm=-1.0), 'max_norm is -1.0'),
        (dict(layers='conv', max_norm=float('nan')), 'max_norm is nan'),
        (dict(layers='conv', max_norm=[1.0]), r'max_norm is \[1.0\]'),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(dict(type='mmlckd.SpectralNormHook', **options))


@pytest.mark.parametrize(
    'layers, message', [('convv', "there are 'conv1', 'conv2', 'fc'"), ('conv[', 'no regular expression')]
)
def test_layers_that_are_not_there_are_named(layers, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        runner(tmp_path, dict(layers=layers)).train()


def test_two_hooks_are_refused(tmp_path):
    run = runner(tmp_path, dict(layers='conv'))
    run.register_hook(HOOKS.build(dict(type='mmlckd.SpectralNormHook', layers='fc')))
    with pytest.raises(ValueError, match='two hooks of type SpectralNormHook: give one with all layers'):
        run.train()


@pytest.mark.process
def test_two_ranks_stay_one_model(tmp_path):
    run_two_ranks(Path(__file__).with_name('two_ranks.py'), tmp_path)
