"""What is said about one network: in which units, of which networks, and what is left as it was."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn

from mmlckd.analysis import Options, analyze
from mmlckd.analysis.profile import transmitting_profile
from mmlckd.registry import MODELS

OPTIONS = Options(num_iters=4, sigmas=[0.0], epsilons=[2.0])


def classifier(std=50.0, **kwargs):
    __import__('mmpretrain.models')
    init_default_scope('mmpretrain')
    return MODELS.build(
        {
            **dict(
                type='ImageClassifier',
                data_preprocessor=dict(type='ClsDataPreprocessor', mean=[100.0] * 3, std=[std] * 3),
                backbone=dict(type='mmlckd.WideResNet', depth=10),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
            ),
            **kwargs,
        }
    )


def batch():
    from mmpretrain.structures import DataSample

    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=[DataSample().set_gt_label(label) for label in (0, 2)])


def test_the_same_function_of_pixels_has_the_same_constants_however_it_normalises():
    one, data = classifier(), batch()
    other = classifier(std=5.0)
    other.load_state_dict(one.state_dict())
    other.backbone.conv1.weight.data /= 10  # its input is ten times as large
    results = [analyze(model, [data], None, (3, 8, 8), OPTIONS) for model in (one, other)]
    assert results[0]['local'] == pytest.approx(results[1]['local'], rel=1e-4)
    assert results[0]['bound'] == pytest.approx(results[1]['bound'], rel=1e-4)
    assert max(results[0]['local']) < results[0]['bound']
    assert results[0]['robustness'] == results[1]['robustness']


def test_the_unit_is_a_pixel_value():
    model = classifier(
        backbone=dict(type='mmpretrain.LeNet5', num_classes=-1),
        neck=None,
        data_preprocessor=dict(type='ClsDataPreprocessor', mean=[0.0], std=[4.0]),
    )
    model.backbone = Identity()
    model.head.fc = nn.Linear(3 * 8 * 8, 3)
    result = analyze(model, [batch()], None, (3, 8, 8), OPTIONS._replace(num_iters=20))
    truth = torch.linalg.matrix_norm(model.head.fc.weight, 2).item() / 4  # logits W x / 4 of pixels x
    assert result['local'] == pytest.approx([truth, truth], rel=1e-4)


@pytest.mark.parametrize('change', [lambda x: x.float() / 255, lambda x: (x.float() - 100) / 50])
def test_images_that_the_pipeline_normalises_are_refused(change):
    data = batch()
    data['inputs'] = [change(image) for image in data['inputs']]
    model = classifier(data_preprocessor=dict(type='ClsDataPreprocessor'))
    with pytest.raises(ValueError, match="let the model's data_preprocessor normalise them"):
        analyze(model, [data], None, (3, 8, 8), OPTIONS)


def test_a_profile_needs_no_head():
    """A head may need more than the images, as Mask2Former's does."""
    model, data = classifier(), batch()
    expected = transmitting_profile(model, [data], ['backbone.layer2', 'backbone.layer3'], (3, 8, 8))
    model.head.forward = None
    found = transmitting_profile(model, [data], ['backbone.layer2', 'backbone.layer3'], (3, 8, 8))
    assert torch.equal(found, expected) and found.shape == (1, 2)


class Identity(nn.Module):
    def forward(self, x):
        return (x.flatten(1),)


def test_nothing_is_left_changed_and_recomputed_activations_are_no_trouble():
    model = classifier(
        backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=4, stem_channels=4, with_cp=True),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=32),
    ).train()
    model.backbone.layer2.eval()
    modes = [module.training for module in model.modules()]
    result = analyze(model, [batch()], ['backbone.layer1', 'backbone.layer2'], (3, 8, 8), OPTIONS)
    assert min(result['local']) > 0 and result['size'] == [8, 8]
    assert result['taps'] == ['backbone.layer1', 'backbone.layer2']
    assert [module.training for module in model.modules()] == modes and model.backbone.layer1[0].with_cp


class Cut(torch.autograd.Function):
    """No forward-mode derivative, as a deformable convolution has none."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_what_cannot_be_differentiated_forward_has_no_local_constant():
    model = classifier()
    model.backbone.register_forward_hook(lambda module, args, output: tuple(Cut.apply(x) for x in output))
    result = analyze(model, [batch()], None, (3, 8, 8), OPTIONS)
    assert result['local'] is None and 'autograd.Function' in result['no_local'] and result['robustness']


@pytest.mark.parametrize('change', ['own class', 'no head', 'no labels'])
def test_classifiers_of_every_kind(change):
    model, data = classifier(), batch()
    if change == 'own class':
        model.__class__ = type('Mine', (type(model),), {})
    elif change == 'no head':
        model.head = model.neck = None
    else:
        for sample in data['data_samples']:
            del sample.gt_label
    result = analyze(model, [data], None, (3, 8, 8), OPTIONS)
    assert ('robustness' in result) == (change == 'own class') and len(result['local']) == 2
    assert result['of'] == ('last map of the backbone' if change == 'no head' else 'logits')
    assert max(result['local']) < result['bound']


def test_a_layer_of_zeros_has_rank_zero():
    model = classifier()
    nn.init.zeros_(model.head.fc.weight)
    result = analyze(model, [batch()], None, (3, 8, 8), OPTIONS)
    assert result['layers']['head.fc'] == dict(operator_norm=0.0, reshaped_norm=0.0, stable_rank=0.0)
    assert result['local'] == [0.0, 0.0]
