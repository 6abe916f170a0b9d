"""The wrapper itself, on small classifiers."""

from __future__ import annotations

import copy
import pickle
import weakref

import pytest
import torch
from conftest import COMPILES, STAGES
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from torch import nn

from mmlckd.distillers import FrozenTeacher, LipschitzDistiller, frozen_teacher
from mmlckd.registry import MODELS

TAPS = ['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn']
LIPSCHITZ = dict(type='mmlckd.LipschitzKDLoss')
KD = dict(type='mmlckd.LogitsKDLoss', taps=['head.fc'])


def wrn(width=1, **preprocessor):
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(type='ClsDataPreprocessor', **preprocessor),
        backbone=dict(type='mmlckd.WideResNet', depth=10, widen_factor=width, dropout=0.1),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=64 * width, loss=dict(type='CrossEntropyLoss')),
    )


def build(student=None, teacher=None, losses=None, taps=TAPS, teachers=None, **kwargs):
    return MODELS.build(
        dict(
            type='mmlckd.LipschitzDistiller',
            student=student or wrn(),
            teacher=teacher if teacher or teachers else dict(model=wrn(2)),
            teachers=teachers,
            losses=losses or dict(lipschitz=dict(LIPSCHITZ, connectors=True)),
            taps=taps,
            **kwargs,
        )
    )


@pytest.fixture(autouse=True)
def scope(classification):
    return classification


@pytest.fixture
def batch(classification):
    return dict(inputs=torch.randn(2, 3, 28, 28), data_samples=classification.batch['data_samples'])


# The module tree is the student's


def test_a_distilled_student_is_its_student():
    model = build()
    assert isinstance(model, LipschitzDistiller) and isinstance(model, MODELS.get('mmpretrain.ImageClassifier'))
    names = [name for name, _ in model.named_parameters()]
    assert names[:2] == [name for name, _ in MODELS.build(wrn()).named_parameters()][:2]
    assert not any(name.startswith(('student', 'teacher')) for name in names)
    assert model.with_neck is True  # a property of the student's class


def test_round_trip_through_both_state_dict_paths():
    model, other = build(), build()
    other.load_state_dict(model.state_dict(), strict=True)
    load_state_dict(other, get_state_dict(model), strict=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


def test_copies_share_the_teacher_and_nothing_else():
    model = build()
    twin = copy.deepcopy(model)
    assert twin.distiller.teacher is model.distiller.teacher
    assert twin.backbone is not model.backbone
    assert twin.distiller.entries[0].loss is twin.distiller.losses['lipschitz']
    average = ExponentialMovingAverage(model, momentum=0.5)
    with torch.no_grad():
        model.backbone.conv1.weight.add_(2.0)
    average.update_parameters(model)
    average.update_parameters(model)
    assert not any('teacher' in key for key in average.state_dict())


def test_pickles():
    model = build()
    twin = pickle.loads(pickle.dumps(model))
    assert type(twin) is type(model)
    assert all(torch.equal(value, twin.state_dict()[key]) for key, value in model.state_dict().items())


def test_moves_with_its_teacher():
    model = build().double()
    assert {
        parameter.dtype for network in (model, model.distiller.teacher.model) for parameter in network.parameters()
    } == {torch.float64}


def test_training_mode_reaches_the_student_and_not_the_teacher():
    model = build().train()
    assert (
        model.training
        and model.backbone.training
        and not any(module.training for module in model.distiller.teacher.model.modules())
    )
    assert not model.eval().training


def test_initialisation_is_the_students_and_spares_the_connectors():
    student = dict(wrn(), init_cfg=dict(type='Constant', val=7.0, layer='Conv2d'))
    model = build(student)
    connector = next(model.distiller.connectors.parameters()).clone()
    model.init_weights()
    assert (next(model.distiller.connectors.parameters()) == connector).all()
    assert list(model.children())[-1] is model.distiller


# Optimizers see the student as it is


def param_groups(model, constructor, paramwise):
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor=constructor,
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
            paramwise_cfg=paramwise,
            type='OptimWrapper',
        ),
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


@pytest.mark.parametrize(
    'constructor, paramwise',
    [
        (
            'DefaultOptimWrapperConstructor',
            dict(custom_keys={'backbone.layer1': dict(lr_mult=0.1), 'head': dict(decay_mult=0.0)}),
        ),
        ('mmpretrain.LearningRateDecayOptimWrapperConstructor', dict(layer_decay_rate=0.5)),
        ('mmdet.LearningRateDecayOptimizerConstructor', dict(num_layers=6, decay_rate=0.5, decay_type='layer_wise')),
    ],
)
def test_optimizer_constructors_act_as_without_the_wrapper(constructor, paramwise):
    import mmdet.engine  # noqa: F401  registers its constructor

    if 'LearningRate' in constructor:
        student = dict(
            type='ImageClassifier',
            head=dict(type='LinearClsHead', num_classes=5, in_channels=96),
            backbone=dict(
                type='mmpretrain.ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[12, 24, 48, 96]), out_indices=(3,)
            ),
        )
        taps, tokens = ['backbone.stages.1', 'backbone.stages.2'], dict(connectors=True)
        teacher = dict(model=copy.deepcopy(student))
    else:
        student, taps, teacher, tokens = wrn(), TAPS, dict(model=wrn(2)), dict(connectors=True)
    alone = param_groups(MODELS.build(copy.deepcopy(student)), constructor, paramwise)
    wrapped = param_groups(
        build(student, teacher, dict(lipschitz=dict(LIPSCHITZ, **tokens)), taps), constructor, paramwise
    )
    assert {name: options for name, options in wrapped.items() if not name.startswith('distiller.')} == alone
    extra = [options for name, options in wrapped.items() if name.startswith('distiller.')]
    assert extra and all(lr == 1.0 for lr, _ in extra)  # connectors learn at the base rate


# Losses


def test_losses_are_what_the_maps_give(batch):
    model = build(losses=dict(lipschitz=dict(LIPSCHITZ), kd=KD)).eval()
    losses = model(**batch, mode='loss')
    maps = {}
    for side, network in (('student', model), ('teacher', model.distiller.teacher.model)):
        handles = [
            network.get_submodule(path).register_forward_hook(
                lambda module, args, output, key=(side, path): maps.update({key: output.clone()})
            )
            for path in (*TAPS, 'head.fc')
        ]
        network(batch['inputs'], mode='tensor')
        [handle.remove() for handle in handles]
    for name, paths in (('lipschitz', TAPS), ('kd', ['head.fc'])):
        expected = model.distiller.losses[name](
            *([maps[side, path] for path in paths] for side in ('student', 'teacher'))
        )
        assert torch.allclose(losses[f'distiller.loss_{name}'], expected, rtol=1e-5)


def test_connectors_are_shared_between_losses_with_the_same_taps():
    losses = dict(lipschitz=dict(LIPSCHITZ, connectors=True), ofd=dict(type='mmlckd.OFDLoss', connectors=True), kd=KD)
    connectors = build(losses=losses).distiller.connectors
    assert [connector[0].weight.shape[:2] for connector in connectors.values()] == [(32, 16), (64, 32), (128, 64)]


@pytest.mark.parametrize('shares', [dict(lipschitz=0.2), dict(lipschitz=0.2, kd=0.3)])
def test_max_share(batch, shares):
    losses = dict(lipschitz=dict(LIPSCHITZ, loss_weight=1e3), kd=dict(KD, loss_weight=1e4))
    for name, share in shares.items():
        losses[name]['max_share'] = share
    capped = build(losses=losses).eval()(**batch, mode='loss')
    total = sum(capped.values())
    for name, share in shares.items():
        part = (capped[f'distiller.loss_{name}'] / total).item()
        # one capped entry is held to its share exactly, several to at most theirs
        assert part == pytest.approx(share, rel=1e-5) if len(shares) == 1 else part <= share
        assert capped[f'distiller.loss_{name}'].requires_grad


def test_an_entry_below_its_share_is_left_alone(batch):
    torch.manual_seed(0)
    free = build(losses=dict(kd=dict(KD, loss_weight=1e-3))).eval()(**batch, mode='loss')
    torch.manual_seed(0)
    capped = build(losses=dict(kd=dict(KD, loss_weight=1e-3, max_share=0.9))).eval()(**batch, mode='loss')
    assert torch.equal(free['distiller.loss_kd'], capped['distiller.loss_kd'])


# The teacher


def test_batch_statistics_of_the_teacher(batch):
    model = build(teacher=dict(model=wrn(2), norm_stats='batch')).train()
    before = copy.deepcopy(model.distiller.teacher.model.state_dict())
    feats = model.distiller.teacher(batch['inputs'], None)
    mean = feats[model.distiller.entries[0].teacher_taps[-1]].mean((0, 2, 3))
    bias = model.distiller.teacher.model.backbone.bn.bias
    assert torch.allclose(mean, bias, atol=1e-5)  # normalised by this very batch
    model.distiller.teacher.load()
    for key, value in model.distiller.teacher.model.state_dict().items():
        if 'running' in key or 'num_batches' in key:
            assert torch.equal(value, before[key])


def test_a_teacher_that_a_checkpoint_fills_draws_no_random_numbers(tmp_path):
    source = MODELS.build(wrn(2))
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'teacher.pth')
    before = torch.get_rng_state()
    teacher = FrozenTeacher(dict(model=wrn(2), checkpoint=str(tmp_path / 'teacher.pth')))
    assert torch.equal(torch.get_rng_state(), before)
    teacher.load()
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in teacher.model.state_dict().items())
    FrozenTeacher(dict(model=wrn(2)))
    assert not torch.equal(torch.get_rng_state(), before)


def test_precision_is_the_teachers_alone(batch, monkeypatch):
    monkeypatch.setattr(frozen_teacher, '_runs_on_cpu', lambda precision: True)  # where bf16 is emulated, too
    readings, seen = {}, []
    for precision in (None, 'fp32', 'bf16'):
        torch.manual_seed(0)
        model = build(teacher=dict(model=wrn(2), precision=precision), losses=dict(lipschitz=LIPSCHITZ)).train()
        seen.clear()
        for network in (model, model.distiller.teacher.model):
            network.backbone.layer2.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
        model(**batch, mode='loss')
        readings[precision] = [norms.teacher for norms in model.distiller.entries[0].loss.last_norms]
        assert seen == [
            torch.bfloat16 if precision == 'bf16' else torch.float32,
            torch.float32,
        ]  # the teacher runs first
        with torch.autocast('cpu', torch.bfloat16):
            model(**batch, mode='loss')
        assert seen[2:] == [torch.float32 if precision == 'fp32' else torch.bfloat16, torch.bfloat16]
        # in half precision convolutions run in channels-last layout, and the maps meet the student's in the usual one
        weight = model.distiller.teacher.model.backbone.layer2[0].conv2.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == (precision == 'bf16')
        assert all(feat.is_contiguous() for feat in model.distiller.teacher(batch['inputs'], None).maps.values())
    for exact, reduced in zip(readings['fp32'], readings['bf16']):
        # bfloat16 keeps 8 bits, 0.4 % a rounding; a norm averages many
        assert torch.allclose(exact, reduced, rtol=0.01) and not torch.equal(exact, reduced)
    assert all(torch.equal(one, other) for one, other in zip(readings[None], readings['fp32']))


@COMPILES
@pytest.mark.slow
def test_a_compiled_step_is_the_same_step(batch):
    losses = []
    for wrap in (
        lambda step: step,
        lambda step: torch.compile(step, backend='eager'),
    ):  # what MMEngine's `compile` field does
        torch.manual_seed(0)
        student = wrn()
        student['backbone']['dropout'] = 0.0
        # At weight 1 its gradient is so large that the second step tells the rounding of the first.
        ofd = dict(type='mmlckd.OFDLoss', connectors=True, loss_weight=1e-5)
        model = build(student, losses=dict(lipschitz=dict(LIPSCHITZ, connectors=True), ofd=ofd, kd=KD)).train()
        model.distiller.teacher.load()
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        forward = wrap(model.forward)
        for _ in range(2):
            loss, terms = model.parse_losses(forward(**batch, mode='loss'))
            optimizer.update_params(loss)
        losses.append(list(terms.values()))
    assert torch.allclose(*map(torch.stack, losses), rtol=1e-5)


@COMPILES
@pytest.mark.slow
def test_compiled_forwards_of_one_class_with_other_taps(batch):
    """A graph is chosen by the taps, too: those of another model, another teacher and another view differ."""
    few = dict(kd=KD)
    many = dict(
        lipschitz=dict(LIPSCHITZ, connectors=True, teacher='other'),
        kd=dict(KD, views='both', teacher='one'),
        local=dict(type='mmlckd.LocalLipschitzKDLoss', taps=['backbone.bn'], connectors=True, teacher='one'),
    )
    two = dict(one=dict(model=wrn(2)), other=dict(model=wrn(2)))
    student = wrn()
    student['backbone']['dropout'] = 0.0
    for fields in (
        dict(losses=few),
        dict(losses=many, teachers=two, view=dict(type='mmlckd.MixedView')),
        dict(losses=few),
    ):
        model = build(student, **fields).train()
        plain = copy.deepcopy(model)
        forward = torch.compile(model.forward, backend='eager')
        for _ in range(2):
            torch.manual_seed(0)
            found = forward(**batch, mode='loss')
            torch.manual_seed(0)
            expected = plain(**batch, mode='loss')
            assert set(found) == set(expected)
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_teacher_maps_are_free_before_the_student_runs(batch):
    model = build(
        losses=dict(lipschitz=dict(LIPSCHITZ, connectors=True), ofd=dict(type='mmlckd.OFDLoss', connectors=True))
    ).train()
    maps, alive = [], []
    for path in TAPS:
        model.distiller.teacher.model.get_submodule(path).register_forward_hook(
            lambda module, args, output: maps.append(weakref.ref(output))
        )
    model.backbone.register_forward_pre_hook(lambda *_: alive.extend(ref() is not None for ref in maps))
    model(**batch, mode='loss')
    assert alive == [False] * len(TAPS)


def test_testing_needs_no_teacher_file(batch, tmp_path):
    model = build(teacher=dict(model=wrn(2), checkpoint=str(tmp_path / 'missing.pth'))).eval()
    assert len(model(**batch, mode='predict')) == 2
    with pytest.raises(FileNotFoundError, match='missing.pth'):
        model.init_weights()


def test_teacher_weights_are_loaded_strictly(tmp_path):
    weights = MODELS.build(wrn(2)).state_dict()
    torch.save(weights, tmp_path / 'good.pth')
    model = build(teacher=dict(model=wrn(2), checkpoint=str(tmp_path / 'good.pth')))
    model.init_weights()
    assert torch.equal(model.distiller.teacher.model.head.fc.weight, weights['head.fc.weight'])
    del weights['head.fc.bias']
    torch.save(weights, tmp_path / 'bad.pth')
    with pytest.raises(ValueError, match=r'bad.pth.*head.fc.bias'):
        build(teacher=dict(model=wrn(2), checkpoint=str(tmp_path / 'bad.pth'))).init_weights()


def test_teacher_by_config_and_by_package_name():
    by_path = build(teacher='configs/demo/mnist5k_wrn16-2.py')
    assert by_path.distiller.teacher.model.head.fc.out_features == 10
    by_name = build(
        teacher='mmpretrain::resnet/resnet18_8xb32_in1k.py',
        losses=dict(lipschitz=LIPSCHITZ),
        student=wrn(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
        taps=dict(student=TAPS, teacher=STAGES[1:]),
    )
    assert type(by_name.distiller.teacher.model.backbone).__name__ == 'ResNet'


def test_different_preprocessing_is_honoured(batch):
    model = build(
        student=wrn(mean=[10.0, 20.0, 30.0], std=[2.0, 4.0, 8.0]),
        teacher=dict(model=wrn(2, mean=[3.0, 2.0, 1.0], std=[5.0, 6.0, 7.0], to_rgb=True)),
    )
    images = dict(inputs=torch.randint(0, 255, (2, 3, 28, 28)), data_samples=batch['data_samples'])
    ours, theirs = (
        network.data_preprocessor(copy.deepcopy(images), False)['inputs']
        for network in (model, model.distiller.teacher.model)
    )
    assert torch.allclose(
        model.distiller.teacher.adapter(ours, None), theirs, atol=1e-4
    )  # pixels up to 255 over 5, in float32
    assert not torch.allclose(ours, theirs, atol=1.0)


# Wrong input


@pytest.mark.parametrize(
    'arguments, message',
    [
        (
            dict(taps=['backbone.layer9', 'backbone.bn']),
            "no module 'backbone.layer9' to tap: the closest are 'backbone.layer",
        ),
        (dict(taps=None), 'losses.lipschitz has no taps'),
        (dict(taps=dict(student=TAPS)), r"taps has the fields \['student'\]"),
        (dict(taps=dict(student=TAPS, teacher=TAPS[:2])), '3 student taps and 2 teacher taps'),
        (dict(taps='vit'), "the preset 'resnet_preact'"),
        (dict(taps='resnet_preact'), 'backbone is a WideResNet, no OpenMMLab ResNet'),
        (dict(losses=dict(kd=dict(KD, max_share=1.5))), 'losses.kd.max_share is 1.5'),
        (dict(losses=dict(kd=dict(KD, connectors=2))), 'losses.kd.connectors is 2'),
        (dict(losses=dict(kd=dict(KD, connectors=True))), 'connectors join maps'),
        (dict(teacher=dict(checkpoint='x.pth')), r"teacher has the fields \['checkpoint'\]"),
        (dict(teacher=dict(model=wrn(), norm_stats='none')), "teacher.norm_stats is 'none'"),
        (
            dict(teacher=dict(model=wrn(), precision='int8')),
            "teacher.precision is 'int8': choose one of 'fp32', 'bf16', 'fp16'",
        ),
        (
            dict(losses=dict(ofd=dict(type='mmlckd.OFDLoss', margins_from=['backbone.layer1'])), taps=['backbone.bn']),
            'no affine batch norm of the teacher',
        ),
    ],
)
def test_wrong_fields_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_the_dry_run_is_as_small_as_the_networks_allow(batch):
    def pooled(kernel, first=1):  # WideResNet's last map is a quarter of the input's size
        class Pooled(MODELS.get('mmlckd.WideResNet')):
            def forward(self, x):
                seen.append(x.shape[-1])
                x = nn.functional.avg_pool2d(x, first)
                return tuple(nn.functional.avg_pool2d(out, kernel) for out in super().forward(x))

        return dict(wrn(2), backbone=dict(type=Pooled, depth=10, widen_factor=2))

    for kernel, sizes in ((4, [16]), (8, [16, 32]), (16, [16, 32, 64])):
        seen = []
        build(teacher=dict(model=pooled(kernel)))
        assert seen == sizes
    tried = r'inputs of \(3, 16, 16\), \(3, 32, 32\), \(3, 64, 64\), \(3, 128, 128\), \(3, 224, 224\), .* failed'
    with pytest.raises(ValueError, match=tried):
        build(teacher=dict(model=pooled(1, first=1024)))
    with pytest.raises(ValueError, match=r'input of \(3, 32, 32\) failed'):
        build(teacher=dict(model=pooled(1, first=64)), input_shape=(3, 32, 32))


def test_missing_teacher_config():
    with pytest.raises(FileNotFoundError, match="config 'configs/no.py' does not exist"):
        build(teacher='configs/no.py')
