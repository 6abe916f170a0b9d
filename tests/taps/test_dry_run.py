"""Dry runs: which inputs they try, what counts as a failure, and whose networks they understand."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from mmlckd.config import bare_model, read_config
from mmlckd.registry import MODELS
from mmlckd.taps import ForwardFailed, Tap, TapError, dry_run, host_of, input_shapes, parse_taps
from mmlckd.taps.input_shapes import SIZES


@pytest.fixture
def heard(monkeypatch):
    sentences = []
    module = import_module('mmlckd.taps.dry_run')  # the package has a function of that name
    monkeypatch.setattr(module, 'print_log', lambda message, logger, level: sentences.append(message))
    return sentences


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


@pytest.mark.parametrize('smallest', [0, 20, 100, 200, 300, 500])
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
    assert max(network.seen) == (3, 224, 224)  # larger sizes are for networks that take none of these
    assert not run.complete and run.shapes == {Tap('stem'): (1, 4, 16, 16)} and run.last_calls == {Tap('stem'): 0}
    with pytest.raises(ForwardFailed, match='too small for the head'):
        dry_run(network, [Tap('head')], None, 'student')


def test_a_wrong_call_is_not_tried_at_other_sizes():
    class NeedsSamples(Network):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            feat = self.stem(inputs)
            self.seen.append(inputs.shape[-1])
            return self.head(feat, *data_samples)  # as mmseg's Mask2Former

    network = NeedsSamples(mean=3)
    with pytest.raises(
        ForwardFailed, match="TypeError.*mode 'tensor' does not get to all taps, so tap modules that come"
    ):
        dry_run(network, [Tap('head')], None, 'student')
    assert network.seen == [16]
    assert dry_run(network, [Tap('stem')], None, 'student').shapes


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
    with pytest.raises(ForwardFailed, match=r'GridError: tap body has grid=\(300, 300\)'):
        dry_run(Tokens(), [Tap('body', grid=(300, 300))], None, 'student')
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
        (dict(module='two'), 'gives a sequence of 2 .0: one tensor .1, 3, 16, 16., 1: one'),
        (dict(module='two', index=2), 'has index=2 and its module gives 2 elements'),
        (dict(module='several', io='input'), 'gives a sequence of 2 .0: one tensor'),
        (dict(module='several', io='input', index=2), 'has index=2 and its module takes 2 elements'),
        (dict(module='several', index=1), 'gives a tuple, not a tensor'),
        (dict(module='none', io='input'), 'takes no argument: tap the output'),
    ],
)
def test_no_tensor_is_guessed(tap, message):
    with pytest.raises(TapError, match=message):
        dry_run(Sides(), [Tap.parse(tap)], None, 'student')


# OpenMMLab's networks


CONFIGS = {
    'GFL': (
        'mmdet::gfl/gfl_r50_fpn_1x_coco.py',
        ['backbone.layer1', dict(module='bbox_head.gfl_cls', call='all')],
        (3, 16, 16),
    ),
    'DETR': ('mmdet::detr/detr_r50_8xb2-150e_coco.py', ['backbone.layer4', 'encoder'], (3, 16, 16)),
    'YOLOX': ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', ['backbone.stage4'], (3, 32, 32)),
    'Swin': (
        'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
        ['backbone.patch_embed.projection', 'backbone.norm3', 'head.fc'],
        (3, 224, 224),
    ),
    'SSD': ('mmdet::ssd/ssd300_coco.py', ['backbone.features.22', 'bbox_head.cls_convs.0'], (3, 320, 320)),
    'FCOS': (
        'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        ['backbone.layer2', dict(module='bbox_head.conv_cls', call='all')],
        (3, 16, 16),
    ),
    'Mask2Former': ('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', ['backbone.layer2'], (3, 16, 16)),
    'Deformable DETR': (
        'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
        ['backbone.layer2'],
        (3, 16, 16),
    ),
    'Mask2Former of mmseg': (
        'mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py',
        ['backbone.layer2'],
        (3, 16, 16),
    ),
    'Swin stages of mmdet': (
        'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
        [dict(module='backbone.stages.0', index=2, grid='auto')],
        (3, 16, 16),
    ),
    'Inception': ('mmpretrain::inception_v3/inception-v3_8xb32_in1k.py', ['backbone.Mixed_7c'], (3, 128, 128)),
}


@pytest.mark.parametrize('path, taps, shape', CONFIGS.values(), ids=CONFIGS)
def test_networks_of_the_hosts(path, taps, shape):
    scope = path.partition(':')[0]
    __import__(f'{scope}.models')
    init_default_scope(scope)
    config = bare_model(read_config(path))
    config.backbone.pop('init_cfg', None)
    model = revert_sync_batchnorm(MODELS.build(config))
    taps = parse_taps(taps, model, 'student')
    run = dry_run(model, taps, None, 'student', trained=True)
    assert run.input_shape == shape and list(run.shapes) == taps


def test_a_tap_is_no_single_level_unless_it_says_which():
    __import__('mmdet.models')
    init_default_scope('mmdet')
    model = MODELS.build(bare_model(read_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')))
    for path in ('bbox_head.retina_cls', 'bbox_head.cls_convs.0.activate'):  # with weights and without
        message = (
            rf"student's tap {path} is for the last of 5 calls, which give maps of different sizes \(2 x 2, 1 x 1.*\): "
            "set call='all' to compare them all, or the number of one"
        )
        with pytest.raises(TapError, match=message):
            dry_run(model, [Tap(path)], None, 'student', trained=True)
        taps = parse_taps([dict(module=path, call='all')], model, 'student')
        assert taps == [Tap(path, call=level) for level in range(5)]
    # 128 px over strides 8 to 128; 80 classes x 9 anchors, or the head's 256 channels
    shapes = dry_run(
        model, parse_taps([dict(module='bbox_head.retina_cls', call='all')], model, 'x'), (3, 128, 128), 'x'
    )
    assert list(shapes.shapes.values()) == [(1, 720, 128 // stride, 128 // stride) for stride in (8, 16, 32, 64, 128)]


class OneBlock(nn.Module):
    """A bottleneck with a stride, whose one ReLU fires at two sizes, and a ReLU of the network's own that does too."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.relu = nn.ReLU()
        self.backbone.block = nn.Module()
        self.backbone.block.conv, self.backbone.block.relu = nn.Conv2d(3, 3, 1, 2), nn.ReLU()
        self.backbone.block.forward = self._block

    def _block(self, feat):
        block = self.backbone.block
        return block.relu(block.conv(block.relu(feat)))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.backbone.relu(self.backbone.block(self.backbone.relu(inputs)))


def test_one_activation_of_a_block_may_fire_at_two_sizes():
    tap = Tap('backbone.block.relu', io='input')
    run = dry_run(OneBlock(), [tap], None, 'student', trained=True)
    assert run.shapes[tap] == (1, 3, 8, 8) and run.last_calls[tap] == 1  # as RegNet's stages of one block
    with pytest.raises(TapError, match='backbone.relu is for the last of 2 calls'):
        dry_run(OneBlock(), [Tap('backbone.relu')], None, 'student')


def test_calls_that_cannot_be_counted_are_to_be_named():
    with pytest.raises(
        ValueError, match=r'no forward shows how many there are: give a tap for each, call=0, .*too small'
    ):
        parse_taps([dict(module='stem', call='all')], Network(smallest=999), 'student')


class TwoModes(nn.Module):
    """Gives a tuple in training and its last element in evaluation, as DDRNet does; ``wide`` is of other channels."""

    def __init__(self):
        super().__init__()
        self.backbone = Taker()
        self.wide = Taker()
        self.last = nn.Identity()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        feat = inputs * self.backbone.weight
        self.wide(feat if self.training else feat.repeat(1, 2, 1, 1))
        outputs = self.backbone(feat, feat + 1) if self.training else self.last(feat)
        return outputs


def test_a_students_maps_are_those_of_training_mode():
    model = TwoModes()
    run = dry_run(model, [Tap('backbone', index=1), Tap('wide')], None, 'student', trained=True)
    assert [run.channels(tap) for tap in run.shapes] == [3, 3] and run.shapes[Tap('wide')] == (1, 3, 16, 16)
    assert dry_run(model, [Tap('wide')], None, 'teacher').channels(Tap('wide')) == 6
    with pytest.raises(TapError, match='in training mode tap backbone gives a sequence of 2 .0: one tensor'):
        dry_run(model, [Tap('backbone')], None, 'student', trained=True)
    with pytest.raises(ValueError, match="teacher's tap backbone never fires"):
        dry_run(model, [Tap('backbone')], None, 'teacher')


@pytest.mark.parametrize('name', ['ddrnet', 'pidnet'])
def test_segmentors_that_return_more_in_training(name):
    __import__('mmseg.models')
    init_default_scope('mmseg')
    path = dict(
        ddrnet='ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py',
        pidnet='pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py',
    )[name]
    config = bare_model(read_config(f'mmseg::{path}'))
    config.backbone.pop('init_cfg', None)
    model = revert_sync_batchnorm(MODELS.build(config))
    with pytest.raises(TapError, match='in training mode tap backbone gives a sequence of'):
        dry_run(model, [Tap('backbone')], None, 'student', trained=True)
    assert dry_run(model, [Tap('backbone')], None, 'teacher').shapes
    assert dry_run(model, [Tap('backbone', index=1)], None, 'student', trained=True).shapes


def test_frozen_taps_are_named_at_the_start(heard):
    from mmpretrain.models import ResNet

    model = Network()
    model.backbone = ResNet(18, frozen_stages=1)
    model.forward = lambda inputs, data_samples=None, mode='tensor': model.backbone(inputs)
    taps = [Tap('backbone.layer1'), Tap('backbone.layer2')]
    run = dry_run(model, taps, None, 'student', trained=True)
    assert run.frozen == taps[:1]
    sentence = "student's weights are frozen up to backbone.layer1 (backbone.frozen_stages=1), so losses there train"
    assert len([line for line in heard if sentence in line]) == 1
    assert not dry_run(model, taps, None, 'teacher').frozen
    model.stem.requires_grad_(False)
    model.forward = lambda inputs, data_samples=None, mode='tensor': model.stem(inputs)
    model.backbone.frozen_stages = -1
    assert dry_run(model, [Tap('stem')], None, 'student', trained=True).frozen == [Tap('stem')]
    assert 'up to stem (requires_grad=False)' in heard[-1]


class Weightless(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(2)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.pool(inputs)


def test_a_network_without_parameters():
    assert dry_run(Weightless(), [Tap('pool')], None, 'student', trained=True).shapes == {Tap('pool'): (1, 3, 8, 8)}


def test_heads_do_not_run_where_only_backbone_and_neck_are_tapped():
    class Detector(Network):
        def __init__(self):
            super().__init__()
            self.backbone, self.neck, self.unused = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Identity()

        def extract_feat(self, inputs):
            return self.neck(self.backbone(inputs))

        def forward(self, inputs, data_samples=None, mode='tensor'):
            raise AssertionError('needs samples')

    taps = [Tap('backbone'), Tap('neck')]
    for trained in (False, True):
        run = dry_run(Detector(), taps, None, 'student', trained)
        assert run.complete and run.shapes[taps[1]] == (1, 5, 16, 16)
    with pytest.raises(ForwardFailed, match='needs samples'):
        dry_run(Detector(), [*taps, Tap('head')], None, 'student')


@pytest.mark.parametrize('square', [True, False])
@pytest.mark.parametrize('side, trained', [('student', True), ('teacher', False)])
def test_class_tokens_are_said(heard, side, trained, square):
    class ClassToken(Tokens):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            tokens = self.patches(inputs).flatten(2).mT
            return self.body(torch.cat([tokens[:, :1], tokens], 1))

    network = ClassToken()
    network.backbone = network.patches  # where the size of the image is read
    tap = Tap('body', grid='auto')
    run = dry_run(network, [tap], (3, 16, 16 if square else 40), side, trained)
    assert run.shapes[tap] == (1, 8, 4, 4 if square else 10) and run.class_tokens == {tap: 1}
    message = f"the {side}'s tap body lays its tokens out on 4 x {4 if square else 10} positions without the first 1"
    assert any(message in line for line in heard)


def test_a_users_subclass_of_a_detector_is_a_detector():
    from conftest import _detection

    __import__('mmdet.models')
    init_default_scope('mmdet')

    class Mine(MODELS.get('mmdet.FasterRCNN')):
        pass

    model = MODELS.build(dict(_detection(18), type=Mine))
    assert host_of(model) == 'mmdet' and host_of(nn.Identity()) is None
    dry_run(model, [Tap('roi_head.bbox_head.fc_cls')], None, 'student')  # reads the image size off a data sample
