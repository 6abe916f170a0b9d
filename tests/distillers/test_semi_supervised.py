"""mmdet's semi-supervised detectors: the branch with labels is distilled."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

from mmlckd.registry import MODELS
from mmlckd.taps import FeatureTap

LOSSES = dict(ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-3, connectors=True))
LOCAL = dict(local=dict(type='mmlckd.LocalLipschitzKDLoss', taps=['neck.fpn_convs.3.conv'], connectors=False))


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    __import__('mmdet.models')
    init_default_scope('mmdet')


def semi(kind='SoftTeacher', depth=18):
    from conftest import _detection

    detector = _detection(depth)
    preprocessor = dict(type='MultiBranchDataPreprocessor', data_preprocessor=detector.data_preprocessor)
    thresholds = dict(
        freeze_teacher=True,
        sup_weight=1.0,
        unsup_weight=4.0,
        pseudo_label_initial_score_thr=0.5,
        rpn_pseudo_thr=0.9,
        cls_pseudo_thr=0.9,
        reg_pseudo_thr=0.02,
        jitter_times=10,
        jitter_scale=0.06,
        min_pseudo_bbox_wh=(1e-2, 1e-2),
    )
    return ConfigDict(
        type=kind,
        detector=detector,
        data_preprocessor=preprocessor,
        semi_train_cfg=thresholds,
        semi_test_cfg=dict(predict_on='teacher'),
    )


def distilled(student, losses=LOSSES, **fields):
    from conftest import _detection

    torch.manual_seed(0)
    cfg = dict(type='mmlckd.LipschitzDistiller', student=student, teacher=dict(model=_detection(34)), losses=losses)
    return MODELS.build({**cfg, 'taps': 'resnet_preact', **fields}).train()


def branches():
    """A batch as MultiBranch packs it: two images with labels, two without, of other sizes, in two versions."""
    from mmdet.testing import demo_mm_inputs

    def packed(*sizes):
        return demo_mm_inputs(len(sizes), [[3, *size] for size in sizes], num_items=[2] * len(sizes), num_classes=3)

    parts = dict(
        sup=packed((64, 96), (80, 48)),
        unsup_teacher=packed((96, 96), (64, 64)),
        unsup_student=packed((64, 64), (96, 64)),
    )
    for name in ('unsup_teacher', 'unsup_student'):
        for sample in parts[name]['data_samples']:
            sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
    return {field: {name: part[field] for name, part in parts.items()} for field in ('inputs', 'data_samples')}


def losses_of(model, data=None):
    data = model.data_preprocessor(copy.deepcopy(data or branches()), True)
    return model(**data, mode='loss')


@pytest.mark.parametrize('kind', ['SoftTeacher', 'SemiBaseDetector'])
def test_the_loss_is_that_of_the_labelled_images_alone(kind):
    from conftest import _detection

    model, plain = distilled(semi(kind)), distilled(_detection(18))
    own = {
        name.removeprefix('student.'): value
        for name, value in model.state_dict().items()
        if name.startswith(('student.', 'distiller.'))
    }
    plain.load_state_dict(own)
    for teacher in (model.distiller.teacher, plain.distiller.teacher):
        torch.manual_seed(0)
        teacher.load()
    data = branches()
    alone = {field: data[field]['sup'] for field in data}
    expected = losses_of(plain, alone)['distiller.loss_ofd']
    losses = losses_of(model, data)
    torch.testing.assert_close(losses['distiller.loss_ofd'], expected)
    assert expected > 0 and any(name.startswith('unsup_') for name in losses)


def test_its_gradient_reaches_the_learning_student_only():
    model = distilled(semi())
    losses_of(model)['distiller.loss_ofd'].backward()
    assert model.student.backbone.conv1.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


def test_maps_of_images_without_labels_are_not_taken():
    model, data = distilled(semi()), branches()
    with FeatureTap(model.student, model.distiller.student_taps) as everything:
        losses_of(model, data)
    for tap in model.distiller.student_taps:
        assert everything.shapes[tap][0] != everything.shapes[tap][-1]
    other = copy.deepcopy(data)
    for image in other['inputs']['unsup_student']:
        image.fill_(0)
    torch.testing.assert_close(
        losses_of(model, data)['distiller.loss_ofd'], losses_of(model, other)['distiller.loss_ofd']
    )


def test_a_second_view_is_of_the_labelled_images():
    model = distilled(semi(), losses={**LOSSES, **LOCAL}, view=dict(type='mmlckd.MixedView'))
    losses = losses_of(model)
    assert losses['distiller.loss_local'] > 0
    losses['distiller.loss_local'].backward()
    assert model.student.backbone.conv1.weight.grad.abs().sum() > 0


def test_the_checkpoint_is_a_stock_detectors():
    model = distilled(semi())
    assert type(model.teacher).__name__ == type(model.student).__name__ == 'FasterRCNN'  # its own, not shadowed
    stock = MODELS.build(semi())
    missing, unexpected = stock.load_state_dict(model.state_dict(), strict=False)
    assert not missing and all(name.startswith('distiller.') for name in unexpected)


def test_taps_are_paths_of_the_learning_student():
    with pytest.raises(ValueError, match=r"no module 'student\.backbone\.layer1' to tap.*'backbone\.layer1'"):
        distilled(semi(), taps=dict(student=['student.backbone.layer1'], teacher=['backbone.layer1']))


def test_other_branches_are_refused():
    from conftest import _detection

    data = branches()
    with pytest.raises(ValueError, match="are a dict of 'labelled', and distillation needs one tensor"):
        distilled(semi())({'labelled': torch.zeros(2, 3, 64, 64)}, mode='loss')
    plain = distilled(_detection(18))
    with pytest.raises(ValueError, match="are a dict of 'sup', .* semi-supervised detectors"):
        plain({name: torch.zeros(2, 3, 64, 64) for name in data['inputs']}, mode='loss')


def _coco(folder, count, labelled):
    """Images of coloured squares and their annotation file, as COCO has them."""
    (folder / 'images').mkdir(parents=True)
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(count):
        pixels = generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        x, y = generator.integers(0, 30, 2).tolist()
        pixels[y : y + 24, x : x + 24] = (255, 0, 0)
        Image.fromarray(pixels).save(folder / 'images' / f'{i}.jpg')
        images.append(dict(id=i, file_name=f'{i}.jpg', width=64, height=64))
        box = dict(id=i, image_id=i, category_id=1, bbox=[x, y, 24, 24], area=576, iscrowd=0)
        annotations += [box] if labelled else []
    names = ('square', 'disc', 'line')
    categories = [dict(id=number, name=name) for number, name in enumerate(names, 1)]
    (folder / 'annotations.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )
    return dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='annotations.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=names),
    )


def test_it_trains_as_mmdet_trains_soft_teacher(tmp_path):
    """Data, sampler, loop and mean teacher as in mmdet's soft_teacher configs."""
    fields = ['sup', 'unsup_teacher', 'unsup_student']
    load = dict(type='LoadImageFromFile')
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'homography_matrix')
    weak = [dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs', meta_keys=keys)]
    labelled = dict(
        **_coco(tmp_path / 'labelled', 4, labelled=True),
        pipeline=[
            load,
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(64, 64)),
            dict(type='MultiBranch', branch_field=fields, sup=[dict(type='PackDetInputs')]),
        ],
    )
    unlabelled = dict(
        **_coco(tmp_path / 'unlabelled', 4, labelled=False),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=[
            load,
            dict(type='LoadEmptyAnnotations'),
            dict(type='Resize', scale=(64, 64)),
            dict(type='MultiBranch', branch_field=fields, unsup_teacher=weak, unsup_student=weak),
        ],
    )
    from conftest import _detection

    config = Config(
        dict(
            default_scope='mmdet',
            model=dict(
                type='mmlckd.LipschitzDistiller',
                student=semi(),
                teacher=dict(model=_detection(34)),
                taps='resnet_preact',
                losses=LOSSES,
            ),
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                sampler=dict(type='GroupMultiSourceSampler', batch_size=4, source_ratio=[1, 1]),
                dataset=dict(type='ConcatDataset', datasets=[labelled, unlabelled]),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=2),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
            custom_hooks=[dict(type='MeanTeacherHook', skip_buffer=False)],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
            randomness=dict(seed=0),
            work_dir=str(tmp_path / 'run'),
        )
    )
    runner = Runner.from_cfg(config)
    before = copy.deepcopy(runner.model.state_dict())
    runner.train()
    after = runner.model.state_dict()
    for network in ('student', 'teacher'):
        name = f'{network}.backbone.conv1.weight'
        assert not torch.equal(before[name], after[name])
    assert runner.message_hub.get_scalar('train/distiller.loss_ofd').current() > 0
    saved = torch.load(tmp_path / 'run' / 'iter_2.pth', weights_only=False)['state_dict']
    MODELS.build(semi()).load_state_dict(
        {name: value for name, value in saved.items() if not name.startswith('distiller.')}
    )
