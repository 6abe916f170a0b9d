"""Annotation files with something wrong: one sentence before training. A host library drops data or fails later."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.data import ConcatDataset as ChainedDataset
from torch.utils.data import Subset

from mmlckd.cli import check_prerequisites, sentence_of
from mmlckd.resumability.run_check_hook import RunCheckHook

NAMES = ('zero', 'one', 'two', 'three')


def said(dataset, scope, wrap=lambda dataset: dataset):
    """The sentence that a config with this data set gets; '' where nothing is wrong."""
    loader = dict(dataset=wrap(dataset))
    config = Config(dict(default_scope=scope, model=dict(type='Model'), train_dataloader=loader, val_dataloader=None))
    try:
        check_prerequisites(config)
    except (ValueError, OSError) as error:
        assert '\n' not in str(error)
        return sentence_of(error)
    return ''


@pytest.fixture
def coco(tmp_path):
    """Four images with a box each, of four categories, and a function that writes the file changed and checks it."""
    (tmp_path / 'images').mkdir()
    content = dict(
        images=[dict(id=i, file_name=f'{i}.png', height=64, width=64) for i in range(4)],
        annotations=[
            dict(id=i, image_id=i, category_id=10 + i, bbox=[1, 1, 9, 9], area=81, iscrowd=0) for i in range(4)
        ],
        categories=[dict(id=10 + i, name=name) for i, name in enumerate(NAMES)],
    )
    for image in content['images']:
        (tmp_path / 'images' / image['file_name']).touch()

    def check(change=lambda content: content, **fields):
        text = change(copy.deepcopy(content))
        (tmp_path / 'boxes.json').write_text(text if isinstance(text, str) else json.dumps(text))
        dataset = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='boxes.json', pipeline=[])
        dataset.update(data_prefix=dict(img='images/'), metainfo=dict(classes=NAMES))
        dataset.update(fields)
        wrap = dataset.pop('wrap', lambda dataset: dataset)
        return said(dataset, 'mmdet', wrap)

    return check


def without(table, i, field):
    def change(content):
        del content[table][i][field]
        return content

    return change


def test_sound_coco_files_pass(coco):
    assert coco() == ''
    assert coco(metainfo=dict(classes=NAMES[:2])) == ''  # classes that leave some out are a choice
    assert coco(lambda content: {**content, 'annotations': []}, test_mode=True) == ''


@pytest.mark.parametrize(
    'fields, sentence',
    [
        (
            dict(metainfo=None),
            "has no category 'person' and 79 more of the dataset's 80 classes: name the file's own in the dataset's "
            "metainfo=dict(classes=('zero', 'one', 'two', ...))",
        ),
        (dict(metainfo=dict(palette=[(0, 0, 0)])), "has no category 'person' and 79 more"),
        (
            dict(metainfo=dict(classes=('zero', 'tree'))),
            "has no category 'tree' of the dataset's 2 classes (is it 'three'?): name the file's own",
        ),
        (dict(metainfo=dict(classes=[*NAMES, 'four'])), "has no category 'four' of the dataset's 5 classes"),
        (
            dict(type='CityscapesDataset', metainfo=None),
            "has no category 'person' and 7 more of the dataset's 8 classes",
        ),
        (dict(data_prefix=dict(img='pictures/')), 'pictures/0.png (and 3 more) does not exist and '),
    ],
)
@pytest.mark.parametrize('wrap', ['plain', 'repeated', 'concatenated', 'mixed'])
def test_classes_of_coco_files(fields, sentence, wrap, coco):
    wraps = dict(
        plain=lambda dataset: dataset,
        repeated=lambda dataset: dict(type='RepeatDataset', times=2, dataset=dataset),
        concatenated=lambda dataset: dict(type='ConcatDataset', datasets=[dict(type='Other'), dataset]),
        mixed=lambda dataset: dict(
            type='MultiImageMixDataset', dataset=dict(type='ClassBalancedDataset', dataset=dataset)
        ),
    )
    assert sentence in coco(wrap=wraps[wrap], **fields)


def test_boxes_of_other_categories_are_named_where_the_classes_are_the_data_sets_own(coco):
    def change(content):
        names = ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle', 'tram')
        content['categories'] = [dict(id=10 + i, name=name) for i, name in enumerate(names)]
        content['annotations'][3]['category_id'] = 18
        return content

    assert "has boxes of 'tram', which is none of the dataset's 8 classes: name" in coco(
        change, type='CityscapesDataset', metainfo=None
    )


@pytest.mark.parametrize(
    'change, sentence',
    [
        (lambda content: json.dumps(content)[:100], 'boxes.json is no JSON ('),
        (lambda content: '', 'boxes.json is no JSON ('),
        (
            lambda content: [content],
            'boxes.json has no list of images: write it in the COCO format, with images, annotations',
        ),
        (lambda content: {**content, 'categories': None}, 'has no list of categories: '),
        (lambda content: {**content, 'annotations': {}}, 'has no list of annotations: '),
        (
            without('images', 2, 'file_name'),
            'has no file_name in images[2]: write id, file_name, height, width for each',
        ),
        (without('annotations', 1, 'bbox'), 'has no bbox in annotations[1]: '),
        (without('annotations', 0, 'category_id'), 'has no category_id in annotations[0]: '),
        (without('categories', 3, 'name'), 'has no name in categories[3]: write id, name for each'),
    ],
)
def test_broken_coco_files(change, sentence, coco):
    assert sentence in coco(change)


def test_a_coco_file_that_does_not_exist(coco):
    assert 'No such file or directory: ' in coco(ann_file='nowhere.json')


WRITE = "write a file name, a space and a label from 0 on, such as 'cats/0001.png 3'"


@pytest.mark.parametrize(
    'text, sentence',
    [
        (b'a.png 0\nb.png\n', f"line 2 of {{path}} is 'b.png': {WRITE}"),
        (b'a.png cat\n', f"line 1 of {{path}} is 'a.png cat': {WRITE}"),
        (b'a.png 1.5\n', f"line 1 of {{path}} is 'a.png 1.5': {WRITE}"),
        (b'a.png,1\n', f"line 1 of {{path}} is 'a.png,1': {WRITE}"),
        (b'a.png\t1\n', f"line 1 of {{path}} is 'a.png\\t1': {WRITE}"),
        (b'a.png 1\nb.png -1\n', f"line 2 of {{path}} is 'b.png -1': {WRITE}"),
        (b'a.png 1\n\nb.png 1\n', 'line 2 of {path} is empty: take it out'),
        (b'a.png 1\n\n', 'line 2 of {path} is empty: take it out'),
        (b'7\n', f"line 1 of {{path}} is '7': {WRITE}"),
        (b'\x89PNG\r\n\x1a\n\xff\xfe', '{path} is no text (invalid start byte): copy or make it again'),
    ],
)
def test_malformed_image_lists(text, sentence, tmp_path):
    path = tmp_path / 'list.txt'
    path.write_bytes(text)
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), ann_file='list.txt', pipeline=[])
    assert said(dataset, 'mmpretrain') == sentence.format(path=path)
    assert said(dict(dataset, type='mmpretrain.CustomDataset'), 'mmpretrain') == sentence.format(path=path)


def test_sound_image_lists_pass(tmp_path):
    (tmp_path / 'list.txt').write_text('a.png 0\na name with spaces.png 12\n')
    (tmp_path / 'names.txt').write_text('a.png\nb.png\n')
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), pipeline=[])
    assert said(dict(dataset, ann_file='list.txt'), 'mmpretrain') == ''
    assert said(dict(dataset, ann_file='names.txt', with_label=False), 'mmpretrain') == ''
    assert said(dict(dataset, data_prefix='images'), 'mmpretrain') == ''  # folders are its labels


@pytest.mark.parametrize(
    'fields, sentence',
    [
        (dict(ann_file=['a.png 1']), "ann_file is ['a.png 1']: give a string or None, such as 'meta/train.txt'"),
        (dict(ann_file=3), 'ann_file is 3: give a string or None'),
        (dict(data_root=['data']), "data_root is ['data']: give a string or None"),
        (dict(data_prefix=3), 'data_prefix is 3: give a string, a dict of strings or None'),
        (dict(metainfo=['cat']), "metainfo is ['cat']: give a dict or None, such as dict(classes=('cat', 'dog'))"),
        (dict(metainfo=dict(classes=10)), 'metainfo.classes is 10: give a string or a list of strings'),
        (dict(metainfo=dict(classes=[0, 1])), 'metainfo.classes[0] is 0: give a string'),
        (dict(pipeline='load'), "pipeline is 'load': give a list of dicts or functions"),
        (dict(pipeline=['LoadImageFromFile']), "pipeline[0] is 'LoadImageFromFile': give a dict or a function"),
    ],
)
def test_fields_of_a_wrong_type(fields, sentence):
    wraps = {
        'train_dataloader.dataset': lambda dataset: dataset,
        'train_dataloader.dataset.datasets.0.dataset': lambda dataset: dict(
            type='ConcatDataset', datasets=[dict(type='RepeatDataset', dataset=dataset)]
        ),
    }
    for field, wrap in wraps.items():
        dataset = dict(type='CustomDataset', **fields)
        assert said(dataset, 'mmpretrain', wrap).startswith(f'{field}.{sentence}')


@pytest.mark.parametrize('scope, text', [('mmdet', 'VOC2007/ImageSets/Main/test.txt'), ('mmseg', 'names.txt')])
def test_lists_of_devkits_that_are_no_text(scope, text, tmp_path):
    (tmp_path / text).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / text).write_bytes(b'\xff\xfe\x00')
    kind = dict(mmdet='VOCDataset', mmseg='PascalVOCDataset')[scope]
    dataset = dict(type=kind, data_root=str(tmp_path), ann_file=text, pipeline=[])
    assert 'is no text (' in said(dataset, scope)


class Head(nn.Module):
    num_classes = 4


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = Head()


class Labels:
    """A data set of given labels, with mmpretrain's method for them."""

    metainfo = {}

    def __new__(cls, *labels):
        from mmpretrain.datasets import CustomDataset

        class Given(CustomDataset):
            def load_data_list(self):
                return [dict(img_path=str(i), gt_label=label) for i, label in enumerate(labels)]

        return Given(data_root='data', pipeline=[])


def wrapped():
    """Each wrapper around a data set whose labels go up to 4, and the field of that."""

    inner = [Labels(0, 1), Labels(3, 4, 0)]
    yield ConcatDataset(inner), '.datasets.1'
    yield RepeatDataset(inner[1], times=3), '.dataset'
    yield ChainedDataset([inner[0], RepeatDataset(inner[1], times=2)]), '.datasets.1.dataset'
    yield Subset(inner[1], [0, 1]), '.dataset'
    yield ClassBalancedDataset(inner[1], oversample_thr=0.1), '.dataset'
    yield inner[1], ''


@pytest.mark.parametrize('index', range(6))
def test_labels_behind_wrappers(index, tmp_path):
    init_default_scope('mmpretrain')
    dataset, place = list(wrapped())[index]

    class Loop:
        class dataloader:
            pass

    Loop.dataloader.dataset = dataset

    class Run:
        model, train_loop, val_loop, work_dir = Network(), Loop, None, str(tmp_path)
        epoch = iter = 0

    hook = RunCheckHook()
    with pytest.raises(ValueError) as caught:
        hook.before_train(Run)
    field = f'train_dataloader.dataset{place}'
    assert str(caught.value) == f'{field} has labels up to 4 and head.num_classes is 4: 5 are needed'
    Run.model.head.num_classes = 5
    hook.before_train(Run)
    hook.after_run(Run)


def test_the_drawn_labels_are_the_written_ones():
    assert np.array_equal(Labels(3, 4, 0).get_gt_labels(), [3, 4, 0])
