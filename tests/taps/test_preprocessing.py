"""Teacher and student that prepare images differently."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from mmlckd.registry import MODELS
from mmlckd.taps import InputAdapter


def detection(**fields):
    __import__('mmdet.models')
    init_default_scope('mmdet')  # in which batch augmentations are looked up
    return MODELS.build(dict(dict(type='mmdet.DetDataPreprocessor', pad_size_divisor=32), **fields))


def classification(**fields):
    __import__('mmpretrain.models')
    init_default_scope('mmpretrain')  # in which batch augmentations are looked up
    return MODELS.build(dict(type='mmpretrain.ClsDataPreprocessor', **fields))


MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def objects(shapes):
    """Samples of mmdet of images of these (height, width)."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    samples = [DetDataSample(metainfo=dict(img_shape=shape, pad_shape=shape)) for shape in shapes]
    for sample in samples:
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 8.0, 8.0]]), labels=torch.tensor([0]))
    return samples


def images(shapes, channels=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (channels, *shape), generator=generator, dtype=torch.uint8) for shape in shapes]


def preprocessed(module, inputs, samples, seed=0):
    """A training batch, with the random draws of this seed."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    data = dict(inputs=[image.clone() for image in inputs], data_samples=copy.deepcopy(samples))
    return module(data, training=True)


def assert_the_teachers_batch(student, teacher, inputs, samples, channels=(3, 3)):
    """What the student's preprocessor makes, translated, is what the teacher's makes."""
    ours, theirs = (preprocessed(module, inputs, samples) for module in (student, teacher))
    found = InputAdapter(student, teacher, channels)(ours['inputs'], ours['data_samples'])
    torch.testing.assert_close(found, theirs['inputs'], rtol=1e-5, atol=1e-4)
    return ours, theirs, found


SHAPES = [(40, 64), (64, 33)]  # padded to 64 x 64
OTHERS = {
    'equal to three decimals': dict(mean=[123.6751, 116.28, 103.53], std=STD),
    'another deviation': dict(mean=MEAN, std=[58.395, 57.12, 57.3752]),
    'flipped': dict(mean=MEAN, std=STD, bgr_to_rgb=True),
    'caffe': dict(mean=[103.53, 116.28, 123.675], std=[1.0] * 3),
    'YOLO': dict(mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=True),
    'YOLOX': dict(pad_value=114),
    'another padding alone': dict(mean=MEAN, std=STD, pad_value=7),
}


@pytest.mark.parametrize('other', OTHERS.values(), ids=OTHERS)
def test_padded_images_of_detectors(other):
    student, teacher = detection(mean=MEAN, std=STD, pad_value=3), detection(**other)
    _, theirs, found = assert_the_teachers_batch(student, teacher, images(SHAPES), objects(SHAPES))
    assert torch.equal(found[0, :, 40:], theirs['inputs'][0, :, 40:])  # the padding to the bit
    assert (found[1, :, :, 33:] == other.get('pad_value', 0)).all()
    assert_the_teachers_batch(teacher, student, images(SHAPES), objects(SHAPES))


@pytest.mark.parametrize('other', OTHERS.values(), ids=OTHERS)
def test_a_small_difference_is_a_difference(other):
    inputs, samples = torch.randn(2, 3, 64, 64), objects(SHAPES)
    ours = detection(mean=MEAN, std=STD)
    assert not torch.equal(InputAdapter(ours, detection(**other))(inputs, samples), inputs)
    assert InputAdapter(ours, copy.deepcopy(ours))(inputs, samples) is inputs


def segmentation(**fields):
    __import__('mmseg.models')
    init_default_scope('mmseg')  # in which batch augmentations are looked up
    return MODELS.build(dict(type='mmseg.SegDataPreProcessor', **fields))


@pytest.mark.parametrize('size', [dict(size=(64, 64)), dict(size_divisor=32)])
def test_padded_images_of_segmentors(size):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = [SegDataSample(metainfo=dict(img_shape=shape)) for shape in SHAPES]
    for sample, shape in zip(samples, SHAPES):
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, *shape, dtype=torch.long))
    student = segmentation(mean=MEAN, std=STD, bgr_to_rgb=True, pad_val=0, **size)
    teacher = segmentation(mean=[103.53, 116.28, 123.675], std=[1.0] * 3, pad_val=5, **size)
    assert_the_teachers_batch(student, teacher, images(SHAPES), samples)


# Batch augmentations: both see the same pixels


def test_random_resizes(monkeypatch):
    from mmengine.logging import MessageHub

    MessageHub.get_current_instance().update_info('iter', 0)
    augments = [dict(type='BatchSyncRandomResize', random_size_range=(32, 128), size_divisor=32, interval=1)]
    student = detection(mean=MEAN, std=STD, batch_augments=copy.deepcopy(augments), pad_value=3)
    teacher = detection(mean=[0.0] * 3, std=[255.0] * 3, batch_augments=copy.deepcopy(augments), pad_value=114)
    adapter, sizes = InputAdapter(student, teacher), set()
    for step in range(6):
        ours, theirs = (preprocessed(side, images(SHAPES), objects(SHAPES), step) for side in (student, teacher))
        found, expected = adapter(ours['inputs'], ours['data_samples']), theirs['inputs']
        sizes.add(found.shape[2:])
        assert found.shape == expected.shape
        for i, sample in enumerate(ours['data_samples']):
            height, width = sample.img_shape
            inside = (
                i,
                slice(None),
                slice(0, height - 1),
                slice(0, width - 1),
            )  # resizing mixes the last row with padding
            torch.testing.assert_close(found[inside], expected[inside], rtol=1e-5, atol=1e-4)
            if height + 1 < found.shape[2]:
                assert (found[i, :, height + 1 :] == 114).all() and (expected[i, :, height + 1 :] == 114).all()
    assert len(sizes) > 1


def test_mosaics():
    from mmdet.datasets.transforms import Mosaic

    random.seed(0)
    np.random.seed(0)

    def result(shape, seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
        boxes = HorizontalBoxes(np.array([[2, 2, 12, 12]], dtype=np.float32))
        fields = dict(gt_bboxes=boxes, gt_bboxes_labels=np.array([0]), gt_ignore_flags=np.array([False]))
        return dict(img=pixels, img_shape=shape, **copy.deepcopy(fields))

    from mmdet.structures.bbox import HorizontalBoxes

    mixed = Mosaic(img_scale=(32, 48), pad_val=114.0)  # twice as large: 64 x 96
    pieces = [result((20 + 4 * i, 40 - 4 * i), i) for i in range(4)]
    mosaic = mixed.transform(dict(pieces[0], mix_results=pieces[1:]))
    image = torch.from_numpy(mosaic['img']).permute(2, 0, 1).contiguous()
    assert (image == 114).all(0).any()  # the borders of a mosaic are pixels, and are normalised
    shapes = [tuple(mosaic['img_shape'][:2]), (40, 60)]
    student = detection(mean=MEAN, std=STD)
    teacher = detection(mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=True, pad_value=5)
    assert_the_teachers_batch(student, teacher, [image, *images(shapes[1:])], objects(shapes))


def test_it_is_translated_where_nothing_is_padded():
    ours, theirs = classification(mean=MEAN, std=STD), classification(mean=[123.67, 116.28, 103.53], std=STD)
    pixels = torch.full((1, 3, 4, 4), 100.0)
    adapted = InputAdapter(ours, theirs)(ours(dict(inputs=pixels))['inputs'], None)
    assert torch.allclose(adapted, theirs(dict(inputs=pixels))['inputs'], atol=1e-6)
    assert not torch.equal(adapted, ours(dict(inputs=pixels))['inputs'])


@pytest.mark.parametrize(
    'one, other',
    [
        ({}, dict(mean=[0.0] * 3, std=[1.0] * 3)),  # nothing normalised, in two ways
        (dict(mean=[7.0] * 3, std=[2.0] * 3), dict(mean=[7.0] * 3, std=[2.0] * 3, pad_size_divisor=1)),
    ],
)
def test_what_is_equal_is_handed_on_as_it_is(one, other):
    inputs = torch.randn(2, 3, 4, 4)
    assert InputAdapter(detection(**one), detection(**other))(inputs, None) is inputs


def test_a_gray_student_of_a_padding_host():
    gray, coloured = detection(mean=[7.0], std=[2.0]), detection(mean=[7.0] * 3, std=[2.0] * 3)
    inputs = torch.randn(2, 1, 4, 4)
    assert torch.equal(InputAdapter(gray, coloured, (1, 3))(inputs, None), inputs.repeat(1, 3, 1, 1))
    with pytest.raises(ValueError, match='no `img_shape`'):
        InputAdapter(gray, detection(mean=MEAN, std=STD), (1, 3))(inputs, None)


def test_a_preprocessor_inside_another_is_found():
    inner = dict(type='mmdet.DetDataPreprocessor', mean=MEAN, std=STD, pad_size_divisor=32)
    wrapped = MODELS.build(dict(type='mmdet.MultiBranchDataPreprocessor', data_preprocessor=copy.deepcopy(inner)))
    InputAdapter(wrapped, MODELS.build(inner))
