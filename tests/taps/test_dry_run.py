"""Dry runs: which inputs they try, what counts as a failure, and whose networks they understand."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn

from mmlckd.config import bare_model, read_config
from mmlckd.registry import MODELS
from mmlckd.taps import ForwardFailed, Tap, TapError, dry_run, host_of, input_shapes
from mmlckd.taps.dry_run import SIZES


class Network(nn.Module):
    """Notes the shapes it is given; may need a size, to get anywhere or to come to its end."""

    def __init__(self, channels=3, smallest=0, smallest_to_end=0, mean=None):
        super().__init__()
        self.head = nn.Conv2d(4, 2, 1)
        self.stem = nn.Conv2d(channels, 4, 1)
        self.seen = []
        self.smallest, self.smallest_to_end = smallest, smallest_to_end
        if mean is not None:
            self.data_preprocessor = nn.Module()
            self.data_preprocessor._enable_normalize = True
            self.data_preprocessor.register_buffer('mean', torch.zeros(mean, 1, 1), False)
            self.data_preprocessor.register_buffer('std', torch.ones(mean, 1, 1), False)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.seen.append(tuple(inputs.shape[1:]))
        if inputs.shape[-1] < self.smallest:
            raise ValueError('too small')  # as batch norms say it
        feat = self.stem(inputs)
        if inputs.shape[-1] < self.smallest_to_end:
            raise AssertionError('too small for the head')
        return self.head(feat)


@pytest.mark.parametrize('smallest', [0, 20, 100, 200])
def test_larger_sizes_are_tried_until_one_works(smallest):
    network = Network(smallest=smallest, mean=3)
    run = dry_run(network, [Tap('stem')], None, 'student')
    expected = [size for i, size in enumerate(SIZES) if i == 0 or SIZES[i - 1] < smallest]
    assert network.seen == [(3, size, size) for size in expected]
    assert run.input_shape == (3, expected[-1], expected[-1]) and run.complete


def test_all_sizes_that_failed_are_told():
    with pytest.raises(ForwardFailed) as failure:
        dry_run(Network(smallest=999), [Tap('stem')], None, 'teacher')
    shapes = ', '.join(f'({channels}, {size}, {size})' for channels in (4, 3) for size in SIZES)
    assert str(failure.value) == (
        f"the teacher's dry run on inputs of {shapes} failed (ValueError: too small): set input_shape=(C, H, W) to a "
        'size it takes'
    )


def test_channels_are_the_data_preprocessors():
    # Its first convolution in the order of the modules is the head's, of 4 channels
    assert next(input_shapes(Network(mean=3))) == (3, 16, 16)
    assert next(input_shapes(Network(channels=7, mean=7))) == (7, 16, 16)
    # A mean of one number holds for any channels. Without one, the first convolution's channels are tried.
    assert [shape[0] for shape in input_shapes(Network(mean=1))] == [4] * len(SIZES) + [3] * len(SIZES)
    assert dry_run(Network(), [Tap('stem')], None, 'student').input_shape == (3, 16, 16)


def test_a_failure_after_the_last_tap_is_none():
    network = Network(smallest_to_end=999, mean=3)
    run = dry_run(network, [Tap('stem')], None, 'student')
    assert not run.complete and run.shapes == {Tap('stem'): (1, 4, 16, 16)} and run.last_calls == {Tap('stem'): 0}
    with pytest.raises(ForwardFailed, match='too small for the head'):
        dry_run(network, [Tap('head')], None, 'student')


def test_a_size_at_which_all_goes_well_is_preferred():
    run = dry_run(Network(smallest_to_end=50, mean=3), [Tap('stem')], None, 'student')
    assert run.complete and run.input_shape == (3, 64, 64)


class Tokens(nn.Module):
    """Tokens of 4 x 4 px patches."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.body = nn.Identity()
        self.unused = nn.Identity()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.seen = [*getattr(self, 'seen', []), inputs.shape[-1]]
        return self.body(self.patches(inputs).flatten(2).mT)


@pytest.mark.parametrize(
    'tap, message',
    [
        (Tap('unused'), "student's tap unused never fires"),
        (Tap('body', call=1), r"student's tap body \(call=1\) fires only 1 times"),
        (Tap('body', index=0), r"tap 'body' has index=0 and its module gives one tensor \(1, 16, 8\): leave index out"),
    ],
)
def test_a_wrong_tap_is_not_tried_at_other_sizes(tap, message):
    network = Tokens()
    with pytest.raises(ValueError, match=message) as failure:
        dry_run(network, [tap], None, 'student')
    assert network.seen == [16] and not isinstance(failure.value, ForwardFailed)


def test_a_grid_finds_its_size():
    network = Tokens()
    assert dry_run(network, [Tap('body', grid=(8, 8))], None, 'student').input_shape == (3, 32, 32)
    assert network.seen == [16, 32]
    with pytest.raises(ForwardFailed, match=r'GridError: tap body has grid=\(99, 99\)'):
        dry_run(Tokens(), [Tap('body', grid=(99, 99))], None, 'student')
    with pytest.raises(TapError, match='fewer class tokens than the 4 of the grid'):
        Tap('body', grid=(2, 2)).select(torch.zeros(1, 16, 8))  # tokens of a larger image


# Where a tap looks


class Sides(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.several, self.none = (nn.ModuleList([Taker()])[0] for _ in range(4))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.one(inputs)
        self.two(inputs, inputs + 1)
        self.several([inputs, inputs + 1], (4, 4))
        self.none()
        return inputs


class Taker(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, *args):
        return args


@pytest.mark.parametrize(
    'tap, value',
    [
        (dict(module='one', io='input'), 0),
        (dict(module='one', io='input', index=0), 0),
        (dict(module='one', index=0), 0),
        (dict(module='one'), 0),  # a tuple of one
        (dict(module='two', io='input'), 0),
        (dict(module='two', io='input', index=1), 1),
        (dict(module='two', io='input', index=-1), 1),
        (dict(module='two', index=1), 1),
        (dict(module='several', io='input', index=0), 0),
        (dict(module='several', io='input', index=1), 1),
    ],
)
def test_which_tensor_is_meant(tap, value):
    from mmlckd.taps import FeatureTap

    tap = Tap.parse(tap)
    with FeatureTap(Sides(), [tap]) as feats:
        feats.model(torch.zeros(1, 3, 2, 2))
    assert feats[tap].unique().tolist() == [value]


@pytest.mark.parametrize(
    'tap, message',
    [
        (dict(module='two'), 'gives a sequence of 2: name one with dict'),
        (dict(module='two', index=2), 'has index=2 and its module gives 2 elements'),
        (dict(module='several', io='input'), 'gives a sequence of 2: name one with dict'),
        (dict(module='several', io='input', index=2), 'has index=2 and its module gives 2 elements'),
        (dict(module='several', index=1), 'gives a tuple, not a tensor'),
        (dict(module='none', io='input'), 'takes no argument: tap the output'),
    ],
)
def test_no_tensor_is_guessed(tap, message):
    with pytest.raises(TapError, match=message):
        dry_run(Sides(), [Tap.parse(tap)], None, 'student')


# OpenMMLab's networks


CONFIGS = {
    'GFL': ('mmdet::gfl/gfl_r50_fpn_1x_coco.py', ['backbone.layer1', 'bbox_head.gfl_cls'], (3, 16, 16)),
    'DETR': ('mmdet::detr/detr_r50_8xb2-150e_coco.py', ['backbone.layer4', 'encoder'], (3, 16, 16)),
    'YOLOX': ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', ['backbone.stage4'], (3, 32, 32)),
    'Swin': (
        'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
        ['backbone.patch_embed.projection', 'backbone.norm3', 'head.fc'],
        (3, 224, 224),
    ),
    'Inception': ('mmpretrain::inception_v3/inception-v3_8xb32_in1k.py', ['backbone.Mixed_7c'], (3, 128, 128)),
}


@pytest.mark.parametrize('path, taps, shape', CONFIGS.values(), ids=CONFIGS)
def test_networks_of_the_hosts(path, taps, shape):
    scope = path.partition(':')[0]
    __import__(f'{scope}.models')
    init_default_scope(scope)
    model = MODELS.build(bare_model(read_config(path)))
    run = dry_run(model, [Tap(tap) for tap in taps], None, 'student', trained=True)
    assert run.input_shape == shape and set(run.shapes) == {Tap(tap) for tap in taps}


def test_a_users_subclass_of_a_detector_is_a_detector():
    from conftest import _detection

    __import__('mmdet.models')
    init_default_scope('mmdet')

    class Mine(MODELS.get('mmdet.FasterRCNN')):
        pass

    model = MODELS.build(dict(_detection(18), type=Mine))
    assert host_of(model) == 'mmdet' and host_of(nn.Identity()) is None
    dry_run(model, [Tap('roi_head.bbox_head.fc_cls')], None, 'student')  # reads the image size off a data sample
