"""Teachers: several at once, shared by copies, sound weights, gray and coloured images, maps overwritten in place."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel, ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from test_lipschitz_distiller import KD, LIPSCHITZ, TAPS, build, wrn
from torch import nn

from mmlckd.cli.prerequisites import needed_paths
from mmlckd.distillers import FrozenTeacher, first_step, frozen_teacher
from mmlckd.losses.ofd_loss import relu_margin
from mmlckd.registry import MODELS


@pytest.fixture(autouse=True)
def scope(classification):
    return classification


@pytest.fixture
def batch(classification):
    return dict(inputs=torch.randn(2, 3, 28, 28), data_samples=classification.batch['data_samples'])


# Several teachers


def ensemble(**losses):
    teachers = dict(wide=dict(model=wrn(2)), narrow=dict(model=wrn(1)))
    losses = losses or dict(
        lipschitz=dict(LIPSCHITZ, teacher='wide', connectors=True),
        narrow_lipschitz=dict(LIPSCHITZ, teacher='narrow', connectors=True),
        kd=dict(KD, teacher='narrow'),
    )
    return MODELS.build(
        dict(type='mmlckd.LipschitzDistiller', student=wrn(), teachers=teachers, losses=losses, taps=TAPS)
    )


def test_each_loss_has_its_own_teacher(batch):
    model = ensemble().eval()
    losses = model(**batch, mode='loss')
    for name, width in (('wide', 2), ('narrow', 1)):
        teacher = model.distiller.teachers[name]
        assert teacher.model.head.fc.in_features == 64 * width
    with torch.no_grad():
        logits = [
            network(batch['inputs'], mode='tensor') for network in (model, model.distiller.teachers['narrow'].model)
        ]
    expected = model.distiller.losses['kd'](*([value] for value in logits))
    assert torch.allclose(losses['distiller.loss_kd'], expected, rtol=1e-5)


def test_connectors_to_two_teachers_are_apart():
    connectors = ensemble().distiller.connectors
    channels = {name: connector[0].out_channels for name, connector in connectors.items()}
    assert channels == {
        f'{teacher}--{tap}--{tap}'.replace('.', '_'): width * base
        for teacher, width in (('wide', 2), ('narrow', 1))
        for tap, base in zip(TAPS, (16, 32, 64))
    }


def test_all_teachers_are_frozen_loaded_moved_and_shared(batch):
    model = ensemble()
    model.init_weights()
    teachers = model.distiller.teachers.values()
    state = [copy.deepcopy(teacher.model.state_dict()) for teacher in teachers]
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    loss, _ = model.train().parse_losses(model(**batch, mode='loss'))
    optimizer.update_params(loss)
    for teacher, before in zip(teachers, state):
        assert teacher._loaded
        assert all(torch.equal(value, before[key]) for key, value in teacher.model.state_dict().items())
    assert not any('wide.' in name or 'narrow.' in name for name in model.state_dict())
    assert copy.deepcopy(model).distiller.teachers['wide'] is model.distiller.teachers['wide']
    assert {p.dtype for teacher in model.double().distiller.teachers.values() for p in teacher.model.parameters()} == {
        torch.float64
    }


def test_one_teacher_alone_may_have_a_name():
    teachers = dict(a=dict(model=wrn(2)))
    model = MODELS.build(
        dict(type='mmlckd.LipschitzDistiller', student=wrn(), teachers=teachers, taps=TAPS, losses=dict(kd=KD))
    )
    assert model.distiller.teacher is model.distiller.teachers['a']
    assert not hasattr(ensemble().distiller, 'teacher')


@pytest.mark.parametrize(
    'fields, message',
    [
        (
            dict(losses=dict(kd=KD)),
            "losses.kd names no teacher and there are several: set its teacher to one of 'a', 'b'",
        ),
        (dict(losses=dict(kd=dict(KD, teacher='c'))), "losses.kd.teacher is 'c': choose one of 'a', 'b'"),
        (dict(losses=dict(kd=dict(KD, teacher=['a']))), r"losses.kd.teacher is \['a'\]: give a string"),
        (dict(losses=dict(kd=dict(KD, teacher='a'))), 'teachers.b is compared by no loss'),
        (dict(teacher=dict(model=wrn())), 'teacher and teachers are both given'),
        (dict(teachers=[wrn()]), 'teachers is .*: give LipschitzDistiller a dict'),
        (dict(teachers={}), 'teachers is {}: give a dict of names'),
        (dict(teachers={'a.b': dict(model=wrn())}), "teachers has the name 'a.b': give a word without dots"),
        (dict(teachers=dict(a=dict(checkpoint='x.pth'))), r"teachers.a has the fields \['checkpoint'\]"),
        (
            dict(teachers=dict(a=dict(model=wrn())), losses=dict(kd=dict(KD, taps=['head.cf']))),
            "the student has no module 'head.cf'",
        ),
        (
            dict(
                teachers=dict(a=dict(model=wrn())),
                losses=dict(kd=dict(KD, taps=dict(student=['head.fc'], teacher=['head.cf']))),
            ),
            "the teacher 'a' has no module 'head.cf'",
        ),
    ],
)
def test_wrong_fields_of_several_teachers(fields, message):
    fields = dict(dict(teachers=dict(a=dict(model=wrn()), b=dict(model=wrn())), losses=dict(kd=KD)), **fields)
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='mmlckd.LipschitzDistiller', student=wrn(), **fields))


def test_the_checkpoints_of_all_teachers_are_needed():
    from mmengine.config import Config

    teachers = dict(a=dict(model=wrn(), checkpoint='a.pth'), b='configs/b.py', c=dict(model=wrn(), checkpoint=None))
    config = Config(dict(model=dict(type='mmlckd.LipschitzDistiller', student=wrn(), teachers=teachers, losses={})))
    assert needed_paths(config) == {'a.pth': 'model.teachers.a.checkpoint'}


# Copies made before the teacher is loaded


def trained_norms(path):
    """A teacher's file whose batch norms are not at 1 and 0."""
    source = MODELS.build(wrn(2))
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    torch.save(dict(state_dict=source.state_dict()), path)
    return source


@pytest.mark.parametrize(
    'clone',
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: ExponentialMovingAverage(model).module,
        lambda model: copy.deepcopy(copy.deepcopy(model)),
    ],
)
def test_margins_of_a_copy_are_those_of_the_loaded_teacher(batch, tmp_path, clone):
    source = trained_norms(tmp_path / 'teacher.pth')
    model = build(
        teacher=dict(model=wrn(2), checkpoint=str(tmp_path / 'teacher.pth')),
        losses=dict(ofd=dict(type='mmlckd.OFDLoss', connectors=True)),
    )
    twin = clone(model)
    model.distiller.teacher.load()
    twin.eval()(**batch, mode='loss')
    for margin, path in zip(twin.distiller.losses['ofd'].margins, TAPS):
        assert torch.equal(margin, relu_margin(source.get_submodule(path)))


def test_a_teacher_follows_the_batch_to_its_device():
    teacher = build(losses=dict(kd=KD)).distiller.teacher
    teacher.load()
    moved = []
    teacher.model.to = lambda device: moved.append(device)
    teacher(torch.zeros(1, 3, 16, 16), None)
    assert not moved
    with pytest.raises((RuntimeError, NotImplementedError)):  # this stub does not move it
        teacher(torch.zeros(1, 3, 16, 16, device='meta'), None)
    assert moved == [torch.device('meta')]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])  # torch 2.1 has no float16 convolution on CPUs
def test_a_copy_of_another_precision_takes_no_digit_from_the_teacher(batch, dtype):
    model = build(losses=dict(kd=KD)).train()
    teacher = model.distiller.teacher
    teacher.load()
    before = copy.deepcopy(teacher.model.state_dict())
    twin = copy.deepcopy(model).to(dtype)
    for each, inputs in ((model, batch['inputs']), (twin, batch['inputs'].to(dtype))):
        assert each(inputs, batch['data_samples'], mode='loss')['distiller.loss_kd'].isfinite()
    after = teacher.model.state_dict()
    assert all(torch.equal(value.to(after[name].dtype), after[name]) for name, value in before.items())
    expected = torch.promote_types(dtype, torch.float32)
    assert teacher.model.head.fc.weight.dtype == expected and twin.head.fc.weight.dtype == dtype


# Weights


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
@pytest.mark.parametrize('key', ['backbone.layer2.0.conv1.weight', 'backbone.bn.running_var'])
def test_weights_that_are_not_finite_are_refused(tmp_path, key, value):
    weights = MODELS.build(wrn(2)).state_dict()
    weights[key].view(-1)[3] = value
    torch.save(weights, tmp_path / 'teacher.pth')
    with pytest.raises(
        ValueError, match=f'teacher.checkpoint is .*teacher.pth.* and {key} has values that are not finite'
    ):
        FrozenTeacher(dict(model=wrn(2), checkpoint=str(tmp_path / 'teacher.pth'))).load()


@pytest.mark.parametrize('value', [torch.nan, -torch.inf])
@pytest.mark.parametrize('key', ['backbone.layer2.0.conv1.weight', 'backbone.bn.running_mean'])
def test_a_built_teacher_that_is_not_finite_is_refused(key, value):
    teacher = MODELS.build(wrn(2))
    teacher.state_dict()[key].view(-1)[3] = value
    message = f'teachers.a is a built ImageClassifier, and {key} has values that are not finite: give one'
    with pytest.raises(ValueError, match=message):
        FrozenTeacher(teacher, 'a').load()
    with pytest.raises(ValueError, match=message):
        FrozenTeacher(dict(model=teacher), 'a').load()


def test_a_teacher_whose_initialisation_is_not_finite_is_refused():
    head = dict(wrn(2)['head'], init_cfg=dict(type='Constant', layer='Linear', val=math.nan))
    with pytest.raises(ValueError, match='teacher.checkpoint is not given, and head.fc.weight has values .*give a che'):
        FrozenTeacher(dict(model=dict(wrn(2), head=head))).load()


class Bare(BaseModel):
    """A network without a parameter, with a buffer or without."""

    def __init__(self, buffers=0):
        super().__init__()
        for i in range(buffers):
            self.register_buffer(f'buffer{i}', torch.ones(3))
        self.inner = nn.Identity()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.inner(inputs).mean()) if mode == 'loss' else self.inner(inputs)


@pytest.mark.parametrize('buffers', [0, 1])
def test_networks_without_parameters_are_refused(buffers):
    for teacher in (Bare(buffers), dict(model=Bare(buffers)), dict(model=dict(type=Bare, buffers=buffers))):
        with pytest.raises(ValueError, match='teacher is a Bare without parameters: give a network that has learned'):
            build(teacher=teacher)
    with pytest.raises(ValueError, match='student Bare has no parameters, so nothing can be trained'):
        build(student=Bare(buffers))


def test_a_built_teacher_is_laid_out_as_any_other():
    """For half precision: the layout in which convolutions run fastest."""
    teachers = [FrozenTeacher(dict(model=model, precision='bf16')) for model in (MODELS.build(wrn(2)), wrn(2))]
    for teacher in teachers:
        teacher.load()
        weight = teacher.model.backbone.layer2[0].conv1.weight
        assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    'precision, native, dtype',
    [('bf16', True, torch.bfloat16), ('bf16', False, torch.float32), ('fp16', False, torch.float32)],
)
def test_a_processor_that_emulates_a_type_runs_the_teacher_in_fp32(monkeypatch, batch, precision, native, dtype):
    said, seen = [], []
    monkeypatch.setattr(frozen_teacher, 'print_log', lambda message, *args: said.append(message))
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, f'_is_mkldnn_{precision}_supported', lambda: native, raising=False)
    frozen_teacher._runs_on_cpu.cache_clear()
    model = build(teacher=dict(model=wrn(2), precision=precision), losses=dict(lipschitz=LIPSCHITZ)).train()
    model.distiller.teacher.model.backbone.layer2.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    for _ in range(2):
        model(**batch, mode='loss')
    frozen_teacher._runs_on_cpu.cache_clear()
    assert seen == 2 * [dtype]
    message = f'this processor only emulates {precision}, which is slower than fp32: the teacher runs in fp32'
    assert said.count(message) == (0 if native else 1)


@pytest.mark.parametrize('dtype', [torch.int8, torch.int64, torch.bool])
def test_integer_weights_are_refused(tmp_path, dtype):
    weights = MODELS.build(wrn(2)).state_dict()
    weights['head.fc.weight'] = weights['head.fc.weight'].to(dtype)
    torch.save(weights, tmp_path / 'teacher.pth')
    with pytest.raises(ValueError, match=f'teachers.a.checkpoint is .*whose head.fc.weight is of {dtype}: quantised'):
        FrozenTeacher(dict(model=wrn(2), checkpoint=str(tmp_path / 'teacher.pth')), 'a').load()


def test_weights_of_half_precision_are_read(tmp_path):
    weights = {
        key: value.half() if value.is_floating_point() else value
        for key, value in MODELS.build(wrn(2)).state_dict().items()
    }
    torch.save(weights, tmp_path / 'teacher.pth')
    teacher = FrozenTeacher(dict(model=wrn(2), checkpoint=str(tmp_path / 'teacher.pth')))
    teacher.load()
    assert torch.equal(teacher.model.head.fc.weight, weights['head.fc.weight'].float())


# Gray and coloured images


def images_of(channels, **preprocessor):
    """A model for images of so many channels."""
    return dict(wrn(**preprocessor), backbone=dict(type='mmlckd.WideResNet', depth=10, in_channels=channels))


@pytest.mark.parametrize('flip', [False, True])
def test_a_gray_student_of_a_coloured_teacher(classification, flip):
    student = images_of(1, mean=[100.0], std=[50.0])
    teacher = images_of(3, mean=[3.0, 2.0, 1.0], std=[5.0, 6.0, 7.0], to_rgb=flip)
    model = build(student, dict(model=teacher), losses=dict(lipschitz=LIPSCHITZ, kd=KD)).train()
    pixels = torch.randint(0, 255, (2, 1, 28, 28))
    ours = model.data_preprocessor(dict(inputs=pixels, data_samples=classification.batch['data_samples']), True)
    theirs = model.distiller.teacher.model.data_preprocessor(dict(inputs=pixels.repeat(1, 3, 1, 1)), False)['inputs']
    adapted = model.distiller.teacher.adapter(ours['inputs'], None)
    assert torch.allclose(adapted, theirs, atol=1e-4)  # pixels up to 255 over 5, in float32
    assert model(**ours, mode='loss')['distiller.loss_lipschitz'] > 0


def test_a_coloured_student_of_a_gray_teacher(classification):
    student = images_of(3, mean=[3.0, 2.0, 1.0], std=[5.0, 6.0, 7.0], to_rgb=True)
    model = build(student, dict(model=images_of(1, mean=[100.0], std=[50.0])), losses=dict(kd=KD)).train()
    pixels = torch.randint(0, 255, (2, 3, 28, 28))
    ours = model.data_preprocessor(dict(inputs=pixels, data_samples=classification.batch['data_samples']), True)
    theirs = (pixels.float().mean(1, keepdim=True) - 100.0) / 50.0
    assert torch.allclose(model.distiller.teacher.adapter(ours['inputs'], None), theirs, atol=1e-5)
    assert model(**ours, mode='loss')['distiller.loss_kd'] > 0


def test_channels_that_cannot_be_made_are_refused():
    with pytest.raises(ValueError, match="student's images have 4 channels and the teacher's 3"):
        build(images_of(4), dict(model=images_of(3)), losses=dict(kd=KD))


def test_a_changed_number_of_channels_is_logged(monkeypatch):
    heard = []
    monkeypatch.setattr('mmlckd.taps.preprocessing.print_log', lambda message, *args: heard.append(message))
    build(images_of(1), dict(model=images_of(3)), losses=dict(kd=KD))
    assert heard == ["the student's images are repeated to 3 channels for the teacher"]
    heard.clear()
    build(images_of(3), dict(model=images_of(3)), losses=dict(kd=KD))
    assert not heard


def test_a_given_input_shape_has_the_students_channels():
    model = build(images_of(1), dict(model=images_of(3)), losses=dict(kd=KD), input_shape=[1, 24, 24])
    assert model.distiller.teacher.adapter.channels == (1, 3)


# Maps overwritten in training only


class Inplace(BaseModel):
    """Overwrites the map of ``conv`` in one mode, in one way."""

    def __init__(self, how=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 1, 1)
        self.how = how
        self.register_buffer('steps', torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.norm(self.conv(inputs))
        if self.training:
            self.steps += 1
        if self.how == 'dropout':
            x = F.dropout(x, 0.5, self.training, inplace=True)
        elif self.how == 'relu' and self.training or self.how == 'later' and self.training and self.steps > 1:
            x = x.relu_()
        elif self.how == 'always':
            x = x.mul_(2)
        output = self.last(x)
        return dict(loss=output.square().mean()) if mode == 'loss' else output


@pytest.mark.parametrize('how', ['dropout', 'relu', 'always'])
def test_a_map_overwritten_in_training_is_copied(how):
    fields = dict(
        teacher=dict(model=Inplace()), taps=['norm'], losses=dict(at=dict(type='mmlckd.AttentionTransferLoss'))
    )
    student = Inplace(how)
    model = build(student, **fields).train()
    maps = []
    student.norm.register_forward_hook(lambda module, args, output: maps.append(output.detach().clone()))
    with model.distiller.tapped(model) as feats:
        model(torch.randn(2, 3, 4, 4), mode='tensor')
    feats.refuse_overwritten('student')
    assert torch.equal(feats[model.distiller.student_taps[0]], maps[0]) and (maps[0] < 0).any()


def test_a_look_at_training_leaves_the_student_as_it_was():
    student = Inplace('dropout')
    student.norm.eval()
    student.last.weight.requires_grad_(False)
    before = copy.deepcopy(student.state_dict())
    buffers = dict(student.named_buffers())
    teacher = Inplace()
    state = torch.get_rng_state()
    build(student, teacher, dict(at=dict(type='mmlckd.AttentionTransferLoss')), ['norm'])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items() if key in before)
    assert all(buffer is buffers[name] for name, buffer in student.named_buffers() if name in buffers)
    assert student.training and not student.norm.training and not student.last.weight.requires_grad


def test_a_map_overwritten_unforeseen_is_refused():
    fields = dict(
        teacher=dict(model=Inplace()), taps=['norm'], losses=dict(at=dict(type='mmlckd.AttentionTransferLoss'))
    )
    model = build(Inplace('later'), **fields).train()
    inputs = torch.randn(2, 3, 4, 4)
    model(inputs, mode='loss')
    with pytest.raises(
        ValueError, match="student's map at norm was overwritten in place after it was taken: set inplace"
    ):
        model(inputs, mode='loss')


# What shapes say


@pytest.fixture
def heard(monkeypatch):
    sentences = []
    monkeypatch.setattr(first_step, 'print_log', lambda message, logger, level: sentences.append(message))
    return sentences


def test_a_pair_at_one_position_is_named_at_the_first_step(batch, heard):
    model = build(losses=dict(lipschitz=LIPSCHITZ)).train()
    for _ in range(2):
        model(batch['inputs'][..., :4, :4], batch['data_samples'], mode='loss')  # stages of 4, 2 and 1 positions a side
    assert heard == [
        'losses.lipschitz: the pair backbone.layer3.0.bn1 to backbone.bn is compared at one position, where a centred '
        'map is zero, so it is left out: use larger images, tap shallower modules, or set center=False'
    ]


@pytest.mark.parametrize('loss, size', [(dict(LIPSCHITZ, center=False), 4), (LIPSCHITZ, 28)])
def test_no_warning_without_its_cause(batch, heard, loss, size):
    model = build(losses=dict(lipschitz=loss)).train()
    model(batch['inputs'][..., :size, :size], batch['data_samples'], mode='loss')
    assert not heard


def test_what_to_do_about_unequal_shapes(batch):
    taps = dict(student=TAPS, teacher=[TAPS[0], TAPS[0], TAPS[0]])
    ofd = dict(type='mmlckd.OFDLoss')
    with pytest.raises(ValueError) as of_sizes:
        build(losses=dict(ofd=dict(ofd, connectors=True)), taps=taps).train()(**batch, mode='loss')
    assert 'tap stages of equal size' in str(of_sizes.value) and 'connectors' not in str(of_sizes.value)
    with pytest.raises(ValueError) as of_channels:
        build(losses=dict(ofd=ofd)).train()(**batch, mode='loss')
    assert 'connectors=True' in str(of_channels.value) and 'equal size' not in str(of_channels.value)


@pytest.mark.parametrize('paths', [[TAPS[2], TAPS[1], TAPS[0]], [TAPS[0], TAPS[0], TAPS[2]]])
def test_margins_of_other_channels_are_refused_at_the_start(paths):
    with pytest.raises(
        ValueError, match=r'losses.ofd.margins_from has a batch norm of \d+ channels for the teacher.s map'
    ):
        build(losses=dict(ofd=dict(type='mmlckd.OFDLoss', connectors=True, margins_from=paths)))


def test_a_negative_rest_does_not_turn_a_gradient_round(batch):
    model = build(losses=dict(kd=dict(KD, max_share=0.5))).train()
    feat = torch.ones((), requires_grad=True)
    losses = {'loss': torch.tensor(-3.0), 'distiller.loss_kd': 2 * feat}
    capped = model.distiller.capped(losses, model.parse_losses)
    capped['distiller.loss_kd'].backward()
    assert capped['distiller.loss_kd'] == 0 and feat.grad == 0  # -3 counts as 0, of which no part is left
