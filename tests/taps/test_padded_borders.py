"""The teacher gets the pixels that its own preprocessor would have made, padding included."""

from __future__ import annotations

import copy
from importlib import import_module

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement, PixelData

from mmlckd.registry import MODELS
from mmlckd.taps import InputAdapter

SIZES = [(40, 64), (64, 33), (50, 50), (64, 64)]
RESNET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
YOLO = dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], bgr_to_rgb=True)
PLAIN = {}
GRAY = dict(mean=[7.0], std=[2.0])
# float32 keeps 24 bits: caffe's values of up to 255, after a product and a sum, are within a few times 255 * 2**-24
ROUNDING = 1e-4


def preprocessor(kind, **fields):
    import_module(f'{kind.partition(".")[0]}.models')
    return MODELS.build(dict(type=kind, **fields))


def detector(pad=0, **fields):
    return preprocessor('mmdet.DetDataPreprocessor', pad_size_divisor=32, pad_value=pad, **fields)


def segmentor(pad=0, **fields):
    return preprocessor('mmseg.SegDataPreProcessor', size=(72, 80), pad_val=pad, **fields)


def classifier(pad=0, **fields):
    fields['to_rgb'] = fields.pop('bgr_to_rgb', False)
    return preprocessor('mmpretrain.ClsDataPreprocessor', pad_size_divisor=32, pad_value=pad, **fields)


def raw(sizes=SIZES, channels=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (channels, *size), generator=generator, dtype=torch.uint8) for size in sizes]


def detections(sizes=SIZES):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    return [
        DetDataSample(metainfo=dict(img_shape=size), gt_instances=InstanceData(bboxes=torch.zeros(1, 4)))
        for size in sizes
    ]


def segmentations(sizes=SIZES):
    from mmseg.structures import SegDataSample

    # img_shape is not given: the preprocessor writes it
    return [SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, *size, dtype=torch.long))) for size in sizes]


def classifications(sizes=SIZES):
    from mmpretrain.structures import DataSample

    return [
        DataSample(metainfo=dict(img_shape=size, num_classes=4)).set_gt_label(i % 4) for i, size in enumerate(sizes)
    ]


HOSTS = dict(mmdet=(detector, detections), mmseg=(segmentor, segmentations), mmpretrain=(classifier, classifications))


def made_by(module, images, samples):
    data = module(dict(inputs=copy.deepcopy(images), data_samples=copy.deepcopy(samples)), True)
    return data['inputs'], data['data_samples']


@pytest.mark.parametrize('host', HOSTS)
@pytest.mark.parametrize('pads', [(0, 0), (0, 3), (2, 0.5)])
@pytest.mark.parametrize(
    'ours, theirs', [(RESNET, YOLO), (YOLO, RESNET), (RESNET, CAFFE), (CAFFE, PLAIN), (PLAIN, RESNET)]
)
def test_the_teacher_gets_what_its_own_preprocessor_makes(host, ours, theirs, pads):
    build, samples = HOSTS[host]
    student, teacher = build(pads[0], **ours), build(pads[1], **theirs)
    inputs, seen = made_by(student, raw(), samples())
    kept = inputs.clone()
    adapted = InputAdapter(student, teacher)(inputs, seen)
    expected, _ = made_by(teacher, raw(), samples())
    assert adapted.shape == expected.shape
    torch.testing.assert_close(adapted, expected, rtol=0, atol=ROUNDING)
    for image, (height, width) in zip(adapted, SIZES):
        assert (image[:, height:] == pads[1]).all() and (image[:, :, width:] == pads[1]).all()
    assert torch.equal(inputs, kept)  # the student's own


@pytest.mark.parametrize('host', HOSTS)
def test_another_pad_value_alone(host):
    build, samples = HOSTS[host]
    student, teacher = build(0, **RESNET), build(3, **RESNET)
    inputs, seen = made_by(student, raw(), samples())
    kept = inputs.clone()
    assert torch.equal(InputAdapter(student, teacher)(inputs, seen), made_by(teacher, raw(), samples())[0])
    assert torch.equal(inputs, kept)


@pytest.mark.parametrize('host', HOSTS)
def test_gray_images_for_a_colour_teacher(host):
    build, samples = HOSTS[host]
    student, teacher = build(2, **GRAY), build(3, **RESNET)
    images = raw(channels=1)
    inputs, seen = made_by(student, images, samples())
    adapted = InputAdapter(student, teacher, (1, 3))(inputs, seen)
    expected, _ = made_by(teacher, [image.repeat(3, 1, 1) for image in images], samples())
    torch.testing.assert_close(adapted, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize('host', HOSTS)
def test_colour_images_for_a_gray_teacher(host):
    build, samples = HOSTS[host]
    student, teacher = build(2, **RESNET), build(3, **GRAY)
    inputs, seen = made_by(student, raw(), samples())
    adapted = InputAdapter(student, teacher, (3, 1))(inputs, seen)
    expected, _ = made_by(teacher, [image.float().mean(0, keepdim=True) for image in raw()], samples())
    torch.testing.assert_close(adapted, expected, rtol=0, atol=ROUNDING)


def test_a_classifier_teaches_a_detector():
    student, teacher = detector(0, **CAFFE), classifier(3, **RESNET)
    inputs, seen = made_by(student, raw(), detections())
    expected, _ = made_by(teacher, raw(), classifications())
    torch.testing.assert_close(InputAdapter(student, teacher)(inputs, seen), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    'build, samples, message',
    [
        (detector, None, 'no `img_shape`'),
        (segmentor, [BaseDataElement()], 'no `img_shape`'),
        (classifier, torch.tensor([1]), 'no `img_shape`'),
        (detector, [BaseDataElement(metainfo=dict(img_shape=(64, 64)))] * 2, 'no `img_shape`'),  # for one image
        (detector, [BaseDataElement(metainfo=dict(img_shape=(65, 64)))], r'is \(65, 64\), which does not fit'),
        (classifier, [BaseDataElement(metainfo=dict(img_shape=(32, 64)))], r'is \(32, 64\), which does not fit'),
    ],
)
def test_unknown_borders_are_refused(build, samples, message):
    adapter = InputAdapter(build(**RESNET), build(**YOLO))
    with pytest.raises(ValueError, match=f'{message}.*: give both models the same data_preprocessor$'):
        adapter(torch.zeros(1, 3, 64, 64), samples)


# Batch augments


@pytest.fixture
def augmented():
    init_default_scope('mmdet')
    MessageHub.get_current_instance().update_info('iter', 0)  # which a runner keeps


@pytest.mark.parametrize('theirs', [RESNET, YOLO])
def test_fixed_size_pad(augmented, theirs):
    pad = [dict(type='mmdet.BatchFixedSizePad', size=(96, 128))]
    student, teacher = detector(batch_augments=pad, **RESNET), detector(batch_augments=pad, **theirs)
    inputs, seen = made_by(student, raw(), detections())
    assert tuple(inputs.shape[2:]) == (96, 128)
    adapted, (expected, _) = InputAdapter(student, teacher)(inputs, seen), made_by(teacher, raw(), detections())
    torch.testing.assert_close(adapted, expected, rtol=0, atol=ROUNDING)


RESIZE = [dict(type='mmdet.BatchSyncRandomResize', random_size_range=(480, 481), size_divisor=32, interval=1)]


def resized(module, sizes):
    """The second batch; its size, 480 px, was drawn after the first."""
    made_by(module, raw(sizes), detections(sizes))
    return made_by(module, raw(sizes), detections(sizes))


def test_random_resize_of_whole_images(augmented):
    # int(352 * (480 / 352)) is 479: the preprocessor's own img_shape ends one pixel early
    student, teacher = (detector(batch_augments=RESIZE, **fields) for fields in (RESNET, YOLO))
    inputs, seen = resized(student, [(352, 352)] * 2)
    assert tuple(inputs.shape[2:]) == (480, 480) and seen[0].img_shape == (479, 479)
    expected, _ = resized(teacher, [(352, 352)] * 2)
    torch.testing.assert_close(InputAdapter(student, teacher)(inputs, seen), expected, rtol=0, atol=ROUNDING)


def test_random_resize_of_padded_images(augmented):
    student, teacher = (detector(batch_augments=RESIZE, **fields) for fields in (RESNET, YOLO))
    sizes = [(320, 200), (150, 320)]
    inputs, seen = resized(student, sizes)
    adapted, (expected, _) = InputAdapter(student, teacher)(inputs, seen), resized(teacher, sizes)
    # 320 px become 480: an image that ends at h ends at 1.5 h. One blended pixel of the source covers 1.5 on each side.
    for ours, theirs, (height, width) in zip(adapted, expected, sizes):
        exact = torch.ones(480, 480, dtype=torch.bool)
        for lines, side in ((exact, height), (exact.T, width)):
            if side < 320:
                lines[int(1.5 * side) - 2 : int(1.5 * side) + 2] = False
        assert exact.float().mean() > 0.98  # 4 lines of 480
        torch.testing.assert_close(ours[:, exact], theirs[:, exact], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize('theirs', [RESNET, YOLO])
def test_random_resize_where_both_are_alike_is_the_students_own(augmented, theirs):
    student = detector(batch_augments=RESIZE, **theirs)
    inputs, seen = resized(student, [(320, 200), (150, 320)])
    assert InputAdapter(student, detector(**theirs))(inputs, seen) is inputs


@pytest.mark.parametrize('theirs', [RESNET, YOLO])
@pytest.mark.parametrize('kind', ['Mixup', 'CutMix', 'ResizeMix'])
def test_mixed_images(kind, theirs):
    init_default_scope('mmpretrain')
    student, teacher = (
        classifier(batch_augments=dict(augments=[dict(type=kind, alpha=0.8)], probs=[1.0]), **fields)
        for fields in (RESNET, theirs)
    )
    images, samples = raw([(64, 64)] * 4), classifications([(64, 64)] * 4)
    results = []
    for module in (student, teacher):  # the same random numbers
        torch.manual_seed(0)
        np.random.seed(0)
        results.append(made_by(module, images, samples))
    (inputs, seen), (expected, _) = results
    assert not torch.equal(inputs, made_by(classifier(**RESNET), images, samples)[0])  # they are mixed
    adapted = InputAdapter(student, teacher)(inputs, seen)
    torch.testing.assert_close(adapted, expected, rtol=0, atol=ROUNDING)


def test_images_mixed_with_padding_are_refused():
    init_default_scope('mmpretrain')
    mixed = dict(augments=[dict(type='Mixup', alpha=0.8)], probs=[1.0])
    student = classifier(batch_augments=mixed, **RESNET)
    inputs, seen = made_by(student, raw(), classifications())
    with pytest.raises(ValueError, match='mixes images with the padding of others'):
        InputAdapter(student, classifier(**YOLO))(inputs, seen)
