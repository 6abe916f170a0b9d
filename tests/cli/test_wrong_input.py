"""Wrong configs, command lines, data and checkpoints: each ends in one sentence that says what to do, and leaves
nothing broken.

python tests/test_wrong_input.py        # prints every case with its sentence
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from conftest import ALONE, LONDON, ROOT, TEACHER, on_mnist, run

TRAIN, TEST, ANALYZE = f'tools/train.py {LONDON}', f'tools/test.py {ALONE}', f'tools/analyze_lipschitz.py {LONDON}'
DISTILLER = "model = dict(_delete_=True, type='mmlckd.LipschitzDistiller', {})"
STUDENT = 'student={{_base_.model.student}}'
LOSSES = 'losses={{_base_.model.losses}}, taps={{_base_.model.taps}}'

# What is wrong; options of `tools/train.py` for the guided demo; the sentence, or what it begins with.
OPTIONS = [
    (
        'student tap unknown',
        'model.taps=[backbone.layer7,backbone.bn]',
        "the student has no module 'backbone.layer7' to tap: the closest are 'backbone.layer",
    ),
    (
        'field beneath a list',
        'model.taps.student=[head.fc]',
        "--cfg-options has 'model.taps.student', which does not fit what the config has there: ",
    ),
    (
        'tap never fires',
        'model.losses.kd.taps=[head.loss_module]',
        "the student's tap head.loss_module never fires through a call in a forward; tap another module",
    ),
    (
        'no taps',
        'model.taps=[]',
        'losses.lipschitz has 0 student taps and 0 teacher taps: both lists need the same number, at least one',
    ),
    (
        'one tap for pairs',
        'model.taps=[backbone.bn]',
        '1 map is tapped: the Lipschitz loss compares consecutive maps and needs at least two',
    ),
    (
        'taps a name',
        'model.taps=resnet',
        "taps is 'resnet' for the student: give a list of module paths or the preset 'resnet_preact'",
    ),
    (
        'preset on another backbone',
        'model.taps=resnet_preact',
        "taps is 'resnet_preact' and the student's backbone is a WideResNet, no OpenMMLab ResNet",
    ),
    (
        'teacher config missing',
        'model.teacher.config=configs/demo/nobody.py',
        "config 'configs/demo/nobody.py' does not exist",
    ),
    (
        'teacher checkpoint missing',
        'model.teacher.checkpoint=nowhere.pth',
        "model.teacher.checkpoint is 'nowhere.pth', which does not exist: put or link it there",
    ),
    (
        'teacher field unknown',
        'model.teacher.weights=a.pth',
        "teacher has the fields ['checkpoint', 'config', 'norm_stats', 'weights']: give config or model",
    ),
    ('norm_stats', 'model.teacher.norm_stats=frozen', "teacher.norm_stats is 'frozen': choose 'running' or 'batch'"),
    ('input_shape of one number', 'model.input_shape=[3]', 'input_shape is [3]: give (C, H, W) of an input that both'),
    (
        'input_shape with other channels',
        'model.input_shape=[5,28,28]',
        "the student's dry run on an input of (5, 28, 28) failed",
    ),
    (
        'negative weight',
        'model.losses.lipschitz.loss_weight=-1',
        'losses.lipschitz.loss_weight is -1: it must not be negative',
    ),
    (
        'unknown distance',
        'model.losses.lipschitz.distance=euclid',
        "losses.lipschitz.distance is 'euclid': choose one of 'log', 'relative', 'absolute'",
    ),
    (
        'pair_weights unknown',
        'model.losses.lipschitz.pair_weights=equal',
        "losses.lipschitz.pair_weights is 'equal': choose 'geometric', 'uniform' or a list of numbers",
    ),
    (
        'pair_weights too few',
        'model.losses.lipschitz.pair_weights=[1.0]',
        'pair_weights has 1 numbers for 2 pairs: give one a pair',
    ),
    ('num_iters', 'model.losses.lipschitz.num_iters=0', 'losses.lipschitz.num_iters is 0: at least 1 is needed'),
    (
        'map_weights unknown',
        'model.losses.ofd.map_weights=uniform',
        "losses.ofd.map_weights is 'uniform': choose 'geometric' or a list of numbers",
    ),
    ('temperature', 'model.losses.kd.tau=0', 'losses.kd.tau is 0: a temperature must be positive'),
    (
        'max_share',
        'model.losses.ofd.max_share=1.5',
        'losses.ofd.max_share is 1.5: give a part of the total between 0 and 1',
    ),
    (
        'connectors not bool',
        'model.losses.ofd.connectors=conv',
        "model.losses.ofd.connectors is 'conv': give True or False",
    ),
    (
        'unknown field of a loss',
        'model.losses.kd.temprature=4',
        "mmlckd.LogitsKDLoss has no field 'temprature': there are tau, loss_weight",
    ),
    (
        'unknown field of the distiller',
        'model.tap=[backbone.bn]',
        "mmlckd.LipschitzDistiller has no field 'tap': the closest are 'taps'",
    ),
    (
        'unknown type of ours',
        'model.losses.kd.type=mmlckd.LogitKDLoss',
        "type 'mmlckd.LogitKDLoss' is not known: the closest are 'mmlckd.LogitsKDLoss'",
    ),
    (
        'unknown type of a host',
        'model.student.neck.type=GlobalAvgPooling',
        "type 'GlobalAvgPooling' is not known: the closest are 'GlobalAveragePooling'",
    ),
    ('unknown field of a host', 'model.student.head.classes=10', "LinearClsHead has no field 'classes'"),
    (
        'value a host refuses',
        'model.student.head.loss.use_sigmoid=True model.student.head.loss.use_soft=True',
        'CrossEntropyLoss cannot be made: use_sigmoid and use_soft',
    ),
    (
        'student against teacher logits',
        'model.student.head.num_classes=12',
        'losses.kd compares head.fc, which gives 12 classes, with head.fc, which gives 10: take this loss out',
    ),
    (
        'hook option out of range',
        'default_hooks.spectral_norm.interval=0',
        'SpectralNormHook.interval is 0: give at least 1 iteration',
    ),
    ('hook selects nothing', 'default_hooks.spectral_norm.layers=decoder', 'layers'),
    ('unknown optimizer', 'optim_wrapper.optimizer.type=SDG', "type 'SDG' is not known: the closest are 'SGD'"),
    (
        'unknown field of the optimizer',
        'optim_wrapper.optimizer.mometum=0.9',
        "SGD has no field 'mometum': the closest are 'momentum'",
    ),
    ('negative learning rate', 'optim_wrapper.optimizer.lr=-0.1', 'SGD cannot be made: Invalid learning rate: -0.1'),
    ('unknown schedule', 'param_scheduler.type=CosineLR', "type 'CosineLR' is not known"),
    ('unknown field of the loop', 'train_cfg.max_epoch=3', "mmlckd.ResumableEpochLoop has no field 'max_epoch': "),
    ('unknown metric', 'val_evaluator.type=Acuracy', "type 'Acuracy' is not known: the closest are 'Accuracy'"),
    (
        'save_best of no direction',
        'default_hooks.checkpoint.save_best=quality',
        'mmlckd.SafeCheckpointHook cannot be made: Cannot infer the rule for key quality',
    ),
    (
        'save_best of another metric',
        'default_hooks.checkpoint.save_best=accuracy/top9 train_cfg.max_epochs=2 train_cfg.val_interval=1',
        "default_hooks.checkpoint.save_best is 'accuracy/top9', and evaluation gives accuracy/top1: choose of these",
    ),
    (
        'data folder missing',
        'train_dataloader.dataset.data_root=nowhere',
        "train_dataloader.dataset.data_root is 'nowhere', which does not exist: put or link it there",
    ),
    (
        'list of images missing',
        'train_dataloader.dataset.ann_file=meta/trian.txt',
        "No such file or directory: '{mnist}/meta/trian.txt': correct the path or its rights",
    ),
    (
        'list of images empty',
        'train_dataloader.dataset.ann_file={files}/empty.txt',
        "CustomDataset finds no samples with ann_file='{files}/empty.txt' in '{mnist}': correct these fields",
    ),
    (
        'image missing',
        'train_dataloader.dataset.ann_file={files}/missing_image.txt',
        '{mnist}/nowhere.png cannot be read ([Errno 2] No such file or directory: ',
    ),
    (
        'image not an image',
        'train_dataloader.dataset.ann_file={files}/text_image.txt',
        '{files}/text.png cannot be read (failed to load image',
    ),
    (
        'image of no bytes',
        'train_dataloader.dataset.ann_file={files}/empty_image.txt',
        '{files}/empty.png cannot be read (OpenCV',
    ),
    (
        'image unreadable in a worker',
        'train_dataloader.num_workers=1 train_dataloader.dataset.ann_file={files}/text_image.txt',
        'an image or its annotation cannot be read (failed to load image: {files}/text.png): replace the file',
    ),
    (
        'labels beyond the head',
        'train_dataloader.dataset.ann_file={files}/eleventh.txt',
        'train_dataloader.dataset has labels up to 10 and head.num_classes is 10: 11 are needed',
    ),
    (
        'classes of data and head',
        'train_dataloader.dataset.metainfo.classes=[a,b,c]',
        'train_dataloader.dataset has 3 classes and head.num_classes is 10: give both the same number',
    ),
    (
        'unknown data set',
        'train_dataloader.dataset.type=CustomDatset',
        "type 'CustomDatset' is not known: the closest are 'CustomDataset'",
    ),
    (
        'unknown transform',
        'train_dataloader.dataset.pipeline.1.type=RandmCrop',
        "type 'RandmCrop' is not known: the closest are 'RandomCrop'",
    ),
    (
        'batch size',
        'train_dataloader.batch_size=0',
        'mmlckd.ResumableEpochLoop cannot be made: batch_size should be a positive integer value',
    ),
    (
        'teacher a web page',
        'model.teacher.checkpoint={files}/page.pth',
        "checkpoint '{files}/page.pth' is a web page and no weights ('<!DOCTYPE html>",
    ),
    (
        'teacher an empty file',
        'model.teacher.checkpoint={files}/empty.pth',
        "checkpoint '{files}/empty.pth' is empty: copy or download it again",
    ),
    (
        'teacher cut short',
        'model.teacher.checkpoint={files}/cut.pth',
        "checkpoint '{files}/cut.pth' is damaged, cut short at ",
    ),
    (
        'teacher no weights',
        'model.teacher.checkpoint={files}/text.pth',
        (
            "checkpoint '{files}/text.pth' is damaged or no checkpoint (UnpicklingError): copy or "
            'download it again, or name another'
        ),
    ),
    (
        'teacher of other architecture',
        'model.teacher.checkpoint={alone}',
        "checkpoint '{alone}' does not fit ImageClassifier: ",
    ),
    (
        'teacher with a prefix',
        'model.teacher.checkpoint={files}/prefix.pth',
        (
            "checkpoint '{files}/prefix.pth' does not fit ImageClassifier: its keys have the prefix "
            "'student.' (student.backbone"
        ),
    ),
    (
        'teacher averaged, of MMEngine',
        'model.teacher.checkpoint={files}/ema.pth',
        "checkpoint '{files}/ema.pth' holds averaged weights (ema_state_dict) and no state_dict",
    ),
    (
        'teacher averaged, of mmcv 1',
        'model.teacher.checkpoint={files}/old_ema.pth',
        (
            "checkpoint '{files}/old_ema.pth' does not fit ImageClassifier: beside the weights it "
            'holds averaged ones (ema_'
        ),
    ),
    (
        'teacher of other classes',
        'model.teacher.checkpoint={files}/classes.pth',
        (
            "checkpoint '{files}/classes.pth' does not fit ImageClassifier: head.fc.weight is (5, "
            '128) in the file and (10, 128) in the network, and so the numbers of classes seem to differ'
        ),
    ),
    (
        'teacher at an address of nothing',
        'model.teacher.checkpoint=http://127.0.0.1:9/teacher.pth',
        "checkpoint 'http://127.0.0.1:9/teacher.pth' cannot be downloaded",
    ),
    (
        'teacher at another scheme',
        'model.teacher.checkpoint=s3://bucket/teacher.pth',
        "checkpoint 's3://bucket/teacher.pth' is not read from s3://: give a path, or an http(s) address",
    ),
    (
        'load_from missing',
        'load_from=nowhere.pth',
        "load_from is 'nowhere.pth', which does not exist: put or link it there",
    ),
    (
        'load_from a web page',
        'load_from={files}/page.pth',
        "checkpoint '{files}/page.pth' is a web page and no weights",
    ),
    (
        'load_from of nothing in common',
        'load_from={files}/prefix.pth',
        "load_from is '{files}/prefix.pth', which does not fit DistilledImageClassifier: ",
    ),
    (
        'field misspelt',
        'modle.taps=[backbone.bn]',
        "--cfg-options has 'modle.taps', and there is no field 'modle': is it 'model'?",
    ),
    (
        'field beneath a number',
        'train_cfg.max_epochs.x=1',
        "--cfg-options has 'train_cfg.max_epochs.x', which does not fit what the config has there: ",
    ),
    (
        'item beyond a list',
        'train_dataloader.dataset.pipeline.9.type=X',
        (
            "--cfg-options has 'train_dataloader.dataset.pipeline.9.type', which does not fit what "
            'the config has there: Index 9 exceeds'
        ),
    ),
]

# What is wrong; a config over the guided demo; what the sentence begins with.
CONFIGS = [
    ('syntax error', 'model = dict(', "config '{config}' cannot be read: SyntaxError"),
    (
        'error while it runs',
        'train_cfg = dict(max_epochs=EPOCHS)',
        "config '{config}' cannot be read: NameError: name 'EPOCHS' is not defined",
    ),
    ('base missing', "_base_ = 'nowhere.py'", "config '{config}' cannot be read: "),
    (
        'module of custom_imports missing',
        "custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)",
        "config '{config}' cannot be read: ImportError: Failed to import no_such_module",
    ),
    (
        'no teacher',
        DISTILLER.format(f'{STUDENT}, {LOSSES}'),
        "mmlckd.LipschitzDistiller lacks the field 'teacher': add it",
    ),
    (
        'no student',
        DISTILLER.format(f"teacher='{TEACHER}', {LOSSES}"),
        "mmlckd.LipschitzDistiller lacks the field 'student': add it",
    ),
    (
        'no losses',
        DISTILLER.format(f"{STUDENT}, teacher='{TEACHER}'"),
        "mmlckd.LipschitzDistiller lacks the field 'losses': add it",
    ),
    (
        'teacher of two kinds',
        "model = dict(teacher=dict(model=dict(type='ImageClassifier')))",
        "teacher has the fields ['checkpoint', 'config', 'model', 'norm_stats']: give config or model",
    ),
    (
        'taps of unequal number',
        "model = dict(taps=dict(student=['backbone.bn', 'head.fc'], teacher=['backbone.bn'], _delete_=True))",
        'losses.lipschitz has 2 student taps and 1 teacher taps: both lists need the same number, at least one',
    ),
    (
        'teacher tap unknown',
        "model = dict(taps=dict(student=['backbone.bn'], teacher=['backbone.nb'], _delete_=True))",
        "the teacher has no module 'backbone.nb' to tap: the closest are 'backbone.bn'",
    ),
    (
        'taps of one side',
        "model = dict(taps=dict(student=['backbone.bn'], _delete_=True))",
        "taps has the fields ['student']: give a list, or dict(student=[...], teacher=[...])",
    ),
    (
        'tap of no such io',
        "model = dict(taps=[dict(module='backbone.bn', io='inside')])",
        "tap 'backbone.bn' has io='inside': choose 'input' or 'output'",
    ),
    (
        'tap with an unknown key',
        "model = dict(taps=[dict(module='backbone.bn', layer=1)])",
        "tap {{'module': 'backbone.bn', 'layer': 1}} is not understood: give a module path",
    ),
    (
        'connectors between vectors',
        'model = dict(losses=dict(kd=dict(connectors=True)))',
        'losses.kd wants connectors between head.fc, which gives (1, 10)',
    ),
    (
        'teacher is a segmentor',
        "model = dict(teacher=dict(config='configs/demo/digits_deeplabv3plus_r18x32.py'), "
        "taps=['backbone.bn', 'head.fc'], losses=dict(_delete_=True, "
        "lipschitz=dict(type='mmlckd.LipschitzKDLoss', taps=dict(student=['backbone.bn'], teacher=['backbone.bn1']))))",
        (
            "teacher is mmseg's EncoderDecoder and student mmpretrain's ImageClassifier: give a "
            "teacher of the student's own task"
        ),
    ),
    (
        'teacher is a detector',
        "model = dict(teacher=dict(config='configs/demo/digits_faster_rcnn_r18x32.py'), losses=dict(_delete_=True, "
        "lipschitz=dict(type='mmlckd.LipschitzKDLoss', taps=dict(student=['backbone.bn'], teacher=['backbone.bn1']))))",
        (
            "teacher is mmdet's FasterRCNN and student mmpretrain's ImageClassifier: give a teacher "
            "of the student's own task"
        ),
    ),
    (
        'weight of no loss',
        "custom_hooks = [dict(type='mmlckd.LossWeightHook', loss='lipshitz', milestones=[1], weights=[0.])]",
        (
            "LossWeightHook.loss is 'lipshitz': name one of the distillation losses with a "
            "loss_weight: 'lipschitz', 'ofd', 'kd'"
        ),
    ),
    (
        'unknown hook',
        "custom_hooks = [dict(type='mmlckd.LossWeighHook')]",
        "type 'mmlckd.LossWeighHook' is not known: the closest are 'mmlckd.LossWeightHook'",
    ),
    ('entry without a type', 'custom_hooks = [dict(interval=1)]', 'an entry of the config cannot be made: '),
    (
        'data without a schedule',
        'train_cfg = None',
        'train_dataloader, train_cfg, and optim_wrapper should be either all None or not None',
    ),
]

# What is wrong; a whole command; what the sentence begins with.
COMMANDS = [
    ('config missing', 'tools/train.py configs/demo/none.py', "config 'configs/demo/none.py' does not exist"),
    ('config a folder', 'tools/train.py configs', "config 'configs' does not exist"),
    ('config of another kind', 'tools/train.py {files}/text.pth', "config '{files}/text.pth' cannot be read: "),
    (
        'config a part',
        'tools/train.py configs/_base_/datasets/mnist5k.py',
        "config 'configs/_base_/datasets/mnist5k.py' has no model",
    ),
    (
        'config of a package missing',
        'tools/train.py mmpretrain::resnet/resnet1_8xb32_in1k.py',
        "config 'mmpretrain::resnet/resnet1_8xb32_in1k.py' cannot be read: ",
    ),
    (
        'work folder a file',
        f'{TRAIN} --work-dir {{files}}/text.pth',
        "--work-dir is '{files}/text.pth', and '{files}/text.pth' is a file: name a folder",
    ),
    (
        'work folder in a file',
        f'{TRAIN} --work-dir {{files}}/text.pth/run',
        "--work-dir is '{files}/text.pth/run', and '{files}/text.pth' is a file: name a folder",
    ),
    (
        'work folder that cannot be',
        f'{TRAIN} --work-dir /proc/run --cfg-options {{guided}}',
        "(No such file or directory: '/proc/run|--work-dir is '/proc/run', and '/proc' may not be written)",
    ),
    (
        'launcher without its environment',
        f'{TRAIN} --launcher pytorch --cfg-options {{guided}}',
        '--launcher pytorch needs RANK, WORLD_SIZE, LOCAL_RANK in the environment: start the tool through',
    ),
    (
        'auto-scale-lr without a size',
        f'{TRAIN} --auto-scale-lr --cfg-options auto_scale_lr.base_batch_size=None',
        '--auto-scale-lr needs the batch size',
    ),
    (
        'resume from nothing',
        f'{TRAIN} --resume nowhere.pth',
        "--resume is to go on from 'nowhere.pth', which does not exist: name another checkpoint",
    ),
    (
        'resume from another config',
        f'{TRAIN} --resume {{alone}} --cfg-options {{guided}}',
        "--resume is given '{alone}', which does not fit this config: ",
    ),
    (
        'resume another architecture',
        f'tools/train.py {TEACHER} --resume {{alone}} --cfg-options {{data}}',
        "--resume is given '{alone}', which does not fit this config: ",
    ),
    (
        'resume with another optimizer',
        (
            f'tools/train.py {ALONE} --resume {{alone}} --cfg-options {{data}} '
            f'optim_wrapper.optimizer._delete_=True optim_wrapper.optimizer.type=AdamW'
        ),
        "--resume is given '{alone}', which does not fit this config: its optimizer's state lacks betas, eps",
    ),
    (
        'resume from weights alone',
        f'tools/train.py {TEACHER} --resume {{teacher}} --cfg-options {{data}}',
        "--resume is given '{teacher}', which has no meta, message_hub, optimizer to go on from",
    ),
    (
        'resume from a web page',
        f'tools/train.py {ALONE} --resume {{files}}/page.pth --cfg-options {{data}}',
        "checkpoint '{files}/page.pth' is a web page and no weights",
    ),
    (
        'resume from a cut file',
        f'tools/train.py {ALONE} --resume {{files}}/cut.pth --cfg-options {{data}}',
        "checkpoint '{files}/cut.pth' is damaged, cut short at",
    ),
    (
        'test without data',
        TEST + ' {alone} --cfg-options test_dataloader.dataset.data_root=nowhere',
        "test_dataloader.dataset.data_root is 'nowhere', which does not exist",
    ),
    ('test of no checkpoint', TEST + ' nowhere.pth --cfg-options {data}', "checkpoint 'nowhere.pth' does not exist"),
    ('test of a folder', TEST + ' {files} --cfg-options {data}', "checkpoint '{files}' is a folder: name a file in it"),
    (
        'test of another network',
        TEST + ' {teacher} --cfg-options {data}',
        "checkpoint '{teacher}' does not fit ImageClassifier: ",
    ),
    (
        'test result into a file',
        TEST + ' {alone} --out {files}/text.pth/m.json --cfg-options {data}',
        "--out is '{files}/text.pth', and '{files}/text.pth' is a file: name a folder",
    ),
    ('export of nothing', 'tools/export_student.py nowhere.pth {tmp}/s.pth', "checkpoint 'nowhere.pth' does not exist"),
    (
        'export of a web page',
        'tools/export_student.py {files}/page.pth {tmp}/s.pth',
        "checkpoint '{files}/page.pth' is a web page and no weights",
    ),
    (
        'export of no training',
        'tools/export_student.py {files}/list.pth {tmp}/s.pth',
        "checkpoint '{files}/list.pth' holds a list: a dict of weights is needed",
    ),
    (
        'export of other content',
        'tools/export_student.py {files}/meta.pth {tmp}/s.pth',
        "checkpoint '{files}/meta.pth' has no state_dict: give a checkpoint that training wrote",
    ),
    (
        'export into a file',
        'tools/export_student.py {alone} {files}/text.pth/s.pth',
        "out is '{files}/text.pth', and '{files}/text.pth' is a file: name a folder",
    ),
    ('analysis of no images', ANALYZE + ' {alone} --images 0', '--images is 0: at least 1 is needed'),
    (
        'analysis into a file',
        ANALYZE + ' {alone} --out {files}/text.pth',
        "--out is '{files}/text.pth', and '{files}/text.pth' is a file: name a folder",
    ),
    (
        'analysis of another network',
        ANALYZE + ' {teacher} --images 1 --out {tmp} --teacher {teacher} --cfg-options {data}',
        "checkpoint '{teacher}' does not fit ImageClassifier: ",
    ),
    (
        'analysis of no checkpoint',
        ANALYZE + ' nowhere.pth --images 1 --out {tmp} --teacher {teacher} --cfg-options {data}',
        "checkpoint 'nowhere.pth' does not exist",
    ),
    (
        'data into a full folder',
        'tools/prepare_digits.py --out {files}',
        "--out is '{files}', which is a folder with other content",
    ),
    (
        'too few scenes',
        'tools/prepare_digit_scenes.py --train 2 --out {tmp}/scenes',
        '--train is 2: at least 4 scenes are needed',
    ),
    (
        'record of no run',
        'tools/maintenance/model_zoo.py --add {files}',
        '{files} has 0 config files: give the work folder of one training',
    ),
]

# Command lines that argparse itself refuses, in its own form.
USAGE = [
    ('no config', 'tools/train.py', 'the following arguments are required: config'),
    ('no checkpoint', TEST, 'the following arguments are required: checkpoint'),
    ('unknown option', f'{TRAIN} --workdir run', 'unrecognized arguments: --workdir'),
    ('unknown launcher', f'{TRAIN} --launcher ray', "argument --launcher: invalid choice: 'ray'"),
    ('override without =', f'{TRAIN} --cfg-options seed', "argument --cfg-options: ['seed'] are to be KEY=VALUE"),
    (
        'override with open brackets',
        f'{TRAIN} --cfg-options model.taps=[a,(b',
        "argument --cfg-options: ['model.taps=[a,(b'] are to be KEY=VALUE",
    ),
    ('number that is none', ANALYZE + ' a.pth --images many', "argument --images: invalid int value: 'many'"),
    ('device that is none', ANALYZE + ' a.pth --device gpu', "argument --device: 'gpu' is no device of this machine"),
    ('demo of no task', 'tools/demo.py --task depth', "argument --task: invalid choice: 'depth'"),
]


@pytest.fixture(scope='module')
def files(trained_alone, teacher, tmp_path_factory):
    """A folder of files with something wrong."""
    folder = tmp_path_factory.mktemp('files')
    (folder / 'page.pth').write_text('<!DOCTYPE html>\n<html><body>404 Not Found</body></html>')
    (folder / 'text.pth').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 5678\n')
    (folder / 'cut.pth').write_bytes(trained_alone.read_bytes()[:-100])
    state = torch.load(teacher, weights_only=True)['state_dict']
    classes = {key: value[:5] if key.startswith('head.') else value for key, value in state.items()}
    for name, content in dict(
        prefix=dict(state_dict={f'student.{key}': value for key, value in state.items()}),
        ema=dict(ema_state_dict={f'module.{key}': value for key, value in state.items()}),
        old_ema=dict(state_dict={**state, **{f'ema_{key.replace(".", "_")}': value for key, value in state.items()}}),
        classes=dict(state_dict=classes),
        list=[1],
        meta=dict(meta={}),
    ).items():
        torch.save(content, folder / f'{name}.pth')
    for name in ('empty.pth', 'empty.png', 'empty.txt'):
        (folder / name).touch()
    (folder / 'text.png').write_text('no image')
    for name, line in dict(
        missing_image='nowhere.png 1',
        text_image=f'{folder}/text.png 1',
        empty_image=f'{folder}/empty.png 1',
        eleventh='0/0000.png 10',
    ).items():
        (folder / f'{name}.txt').write_text(f'{line}\n' * 40)
    return folder


@pytest.fixture
def places(files, trained_alone, teacher, mnist, tmp_path):
    """What stands in braces in the cases."""
    return dict(
        files=files,
        alone=trained_alone,
        teacher=teacher,
        mnist=mnist,
        tmp=tmp_path,
        config=tmp_path / 'wrong.py',
        data=' '.join(on_mnist(mnist)),
        guided=' '.join([*on_mnist(mnist), f'model.teacher.checkpoint={teacher}']),
    )


def check(what, command, sentence, places):
    command = shlex.split(command.format(**places))
    if command[0] in ('tools/train.py', 'tools/test.py') and '--work-dir' not in command:
        command[2:2] = ['--work-dir', str(places['tmp'] / 'run')]
    result = run(*command)
    last = result.stderr.strip().splitlines()[-1]
    print(f'{what} | {last}')
    assert result.returncode == 1, result.stderr
    assert 'Traceback' not in result.stderr, result.stderr
    assert re.search(r'^error: ', result.stderr, re.MULTILINE) and last.startswith('error: '), result.stderr
    expected = sentence.format(**places)
    assert last.startswith(f'error: {expected}') or '|' in expected and re.match(f'error: {expected}', last), last
    written = {path.suffix for path in places['tmp'].rglob('*') if path.is_file() and path != places['config']}
    assert not written & {'.pth', '.partial', '.png', '.md'}, written


@pytest.mark.parametrize('what, options, sentence', OPTIONS, ids=[case[0] for case in OPTIONS])
def test_options(what, options, sentence, places):
    check(what, f'{TRAIN} --cfg-options {{guided}} {options}', sentence, places)


@pytest.mark.parametrize('what, text, sentence', CONFIGS, ids=[case[0] for case in CONFIGS])
def test_configs(what, text, sentence, places):
    base = '' if '_base_ =' in text else f"_base_ = '{ROOT / LONDON}'\n"
    places['config'].write_text(f'{base}{text}\n')
    check(
        what,
        f'tools/train.py {{config}} --cfg-options {"{data}" if "LipschitzDistiller" in text else "{guided}"}',
        sentence,
        places,
    )


@pytest.mark.parametrize('what, command, sentence', COMMANDS, ids=[case[0] for case in COMMANDS])
def test_commands(what, command, sentence, places):
    check(what, command, sentence, places)


@pytest.mark.parametrize('what, command, sentence', USAGE, ids=[case[0] for case in USAGE])
def test_usage(what, command, sentence, tmp_path):
    result = run(*shlex.split(command))
    last = result.stderr.strip().splitlines()[-1]
    print(f'{what} | {last}')
    assert result.returncode == 2 and 'Traceback' not in result.stderr
    assert last.startswith(f'{Path(shlex.split(command)[0]).name}: error: {sentence}'), last


if __name__ == '__main__':
    sys.exit(pytest.main([__file__, '--capture=no', '--quiet', '--tb=line']))
