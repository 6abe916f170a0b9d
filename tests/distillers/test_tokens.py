"""Students and teachers that give tokens (B, N, C)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmlckd.distillers.connectors import Connector
from mmlckd.registry import MODELS
from mmlckd.taps import Tap


@pytest.fixture(autouse=True)
def scope(classification):
    return classification


@pytest.fixture
def batch(classification):
    return dict(inputs=torch.randn(2, 3, 32, 32), data_samples=classification.batch['data_samples'])


def arch(width):
    return dict(embed_dims=width, num_layers=4, num_heads=2, feedforward_channels=2 * width)


def vit(width, **fields):
    backbone = dict(type='VisionTransformer', arch=arch(width), img_size=32, patch_size=8, **fields)
    return _classifier(backbone, dict(type='VisionTransformerClsHead', num_classes=5, in_channels=width))


def distilled_deit(width):
    backbone = dict(type='DistilledVisionTransformer', arch=arch(width), img_size=32, patch_size=8)
    return _classifier(backbone, dict(type='DeiTClsHead', num_classes=5, in_channels=width))


def swin(width, **fields):
    backbone = dict(
        type='SwinTransformer',
        arch=dict(embed_dims=width, depths=[1, 1, 2], num_heads=[2, 2, 2]),
        img_size=32,
        window_size=2,
        out_indices=(2,),
        **fields,
    )
    head = dict(type='LinearClsHead', num_classes=5, in_channels=4 * width)
    return _classifier(backbone, head, neck=dict(type='GlobalAveragePooling'))


def t2t(width):
    backbone = dict(
        type='T2T_ViT',
        img_size=32,
        embed_dims=width,
        t2t_cfg=dict(token_dims=8, use_performer=False),
        num_layers=4,
        layer_cfgs=dict(num_heads=2, feedforward_channels=width),
    )
    return _classifier(backbone, dict(type='VisionTransformerClsHead', num_classes=5, in_channels=width))


def convnext():
    head = dict(type='LinearClsHead', num_classes=5, in_channels=24)
    backbone = dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1], channels=[8, 16, 24]), out_indices=[2])
    return _classifier(backbone, head)


def resnet():
    head = dict(type='LinearClsHead', num_classes=5, in_channels=128)
    backbone = dict(type='ResNet', depth=18, base_channels=16, stem_channels=16)
    return _classifier(backbone, head, neck=dict(type='GlobalAveragePooling'))


def _classifier(backbone, head, **fields):
    preprocessor = dict(type='ClsDataPreprocessor')
    return dict(type='ImageClassifier', data_preprocessor=preprocessor, backbone=backbone, head=head, **fields)


def layers(*numbers, **fields):
    return [dict(module=f'backbone.layers.{number}', **fields) for number in numbers]


def encoder(*numbers, **fields):
    return [dict(module=f'backbone.encoder.{number}', **fields) for number in numbers]


def stages(*numbers, **fields):
    return [dict(module=f'backbone.stages.{number}', **fields) for number in numbers]


PAIRS = {
    # student, teacher, taps of each, losses that take what they give
    'ViT to ViT, tokens': (vit(16), vit(24), layers(1, 3), layers(1, 3), 'pkd lipschitz'),
    'ViT to distilled DeiT': (
        distilled_deit(16),
        vit(24),
        layers(1, 3, grid='auto'),
        layers(1, 3, grid='auto'),
        'pkd lipschitz ofd',
    ),
    'Swin to Swin, tokens': (swin(8), swin(12), stages(0, 1), stages(0, 1), 'pkd'),
    'Swin to Swin': (swin(8), swin(12), stages(0, 1, grid='auto'), stages(0, 1, grid='auto'), 'pkd lipschitz ofd'),
    'T2T to T2T': (t2t(16), t2t(24), encoder(1, 3), encoder(1, 3), 'pkd lipschitz'),
    'T2T to DeiT, other patches': (
        vit(16),
        t2t(24),
        layers(1, 3, grid='auto'),
        encoder(1, 3, grid='auto'),
        'pkd lipschitz',
    ),
    'ConvNeXt to ResNet': (resnet(), convnext(), ['backbone.layer1', 'backbone.layer2'], stages(0, 1), 'pkd ofd'),
    'Swin to ResNet': (
        resnet(),
        swin(12),
        ['backbone.layer1', 'backbone.layer2'],
        stages(0, 1, grid='auto'),
        'pkd lipschitz',
    ),
}
LOSSES = dict(
    pkd=dict(type='mmlckd.PKDLoss', connectors=True),
    lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True),
    ofd=dict(type='mmlckd.OFDLoss', connectors=True),
)


@pytest.mark.parametrize('student, teacher, ours, theirs, losses', PAIRS.values(), ids=PAIRS)
def test_pairs_train(student, teacher, ours, theirs, losses, batch):
    names = losses.split()
    model = build(student, teacher, ours, theirs, names)
    values = model(**batch, mode='loss')
    weight = next(weight for name, weight in model.named_parameters() if name.startswith('backbone.'))
    for name in names:
        (gradient,) = torch.autograd.grad(values[f'distiller.loss_{name}'], weight, retain_graph=True)
        assert gradient.isfinite().all() and gradient.norm() > 0


def build(student, teacher, ours, theirs, names):
    return MODELS.build(
        dict(
            type='mmlckd.LipschitzDistiller',
            student=student,
            teacher=dict(model=teacher),
            taps=dict(student=ours, teacher=theirs),
            losses={name: dict(LOSSES[name]) for name in names},
        )
    )


def test_other_image_sizes_have_grids_of_their_own():
    tap = dict(module='backbone.stages.0', grid='auto')
    model = build(swin(8), swin(12), [tap, tap], [tap, tap], ['pkd'])
    for height, width in ((32, 32), (48, 64), (36, 52)):  # patches of 4 px; windows are padded
        with model.distiller.tapped(model) as feats:
            model.extract_feat(torch.randn(1, 3, height, width))
        assert feats[Tap.parse(tap)].shape == (1, 8, height // 4, width // 4)


def test_tokens_that_meet_maps_without_a_grid():
    with pytest.raises(ValueError, match=r"which gives \(1, 64, 12\).*lay tokens that meet maps out with grid='auto'"):
        build(resnet(), swin(12), ['backbone.layer1'], stages(0), ['pkd'])


def test_tokens_and_their_map_are_connected_alike():
    torch.manual_seed(0)
    connector = Connector(3, 5)
    twin = Connector(3, 5)
    twin.load_state_dict(connector.state_dict())
    tokens = torch.randn(2, 6, 3, requires_grad=True)
    out, expected = connector(tokens), twin(tokens.mT.unflatten(2, (2, 3)))
    assert out.shape == (2, 6, 5)
    torch.testing.assert_close(out.mT.unflatten(2, (2, 3)), expected)
    torch.testing.assert_close(connector[1].running_var, twin[1].running_var)
    # A linear map, and a norm over all tokens of the batch
    plain = tokens @ connector[0].weight.flatten(1).T
    standardised = nn.functional.batch_norm(plain.flatten(0, 1), None, None, training=True).view(2, 6, 5)
    torch.testing.assert_close(out, standardised)
    weights = torch.randn_like(out)
    leaves = tokens, connector[0].weight
    found, wanted = ([*torch.autograd.grad((side * weights).sum(), leaves)] for side in (out, standardised))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
