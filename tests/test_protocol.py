"""The classification recipes have the numbers of the authors' experiments; one step is computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from scipy.stats import norm as normal

from mmlckd.config import bare_model, read_config
from mmlckd.registry import MODELS

WRN_TAPS = ['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn']
PYRAMID_TAPS = ['backbone.layer2.0.bn2', 'backbone.layer3.0.bn2', 'backbone.bn']  # bottlenecks: the second batch norm
# The authors' settings: student, alpha from epoch 0 and from 120, batch, factor of the learning rate at epoch 175, taps
CIFAR = {
    'wrn28-4_to_wrn16-4': ('wrn16-4', (0.8, 0.2), 128, None, WRN_TAPS, WRN_TAPS),
    'wrn28-4_to_wrn28-2': ('wrn28-2', (0.2, 0.2), 128, None, WRN_TAPS, WRN_TAPS),
    'wrn28-4_to_wrn16-2': ('wrn16-2', (0.25, 0.25), 128, 1 / 500, WRN_TAPS, WRN_TAPS),
    'wrn28-4_to_resnet56': ('resnet56', (1, 2), 128, 1 / 500, 'resnet_preact', WRN_TAPS),
    'pyramidnet200_to_wrn28-4': ('wrn28-4', (4, 4), 64, 1 / 1000, WRN_TAPS, PYRAMID_TAPS),
    'pyramidnet200_to_pyramidnet110': ('pyramidnet110', (1, 1), 64, 1 / 500, WRN_TAPS, PYRAMID_TAPS),
}
IMAGENET = {'resnet152_to_resnet50': 'resnet50', 'resnet50_to_mobilenet': 'mobilenet'}


def sides(taps):
    return (taps['student'], taps['teacher']) if isinstance(taps, dict) else (taps, taps)


def learning_rates(config, epochs):
    """The learning rate in those epochs, from the schedulers themselves."""
    from mmengine.registry import PARAM_SCHEDULERS

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=config.optim_wrapper.optimizer.lr)
    schedulers = config.param_scheduler if isinstance(config.param_scheduler, list) else [config.param_scheduler]
    schedulers = [PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=optimizer)) for scheduler in schedulers]
    rates = []
    for _ in range(max(epochs) + 1):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return [rates[epoch] for epoch in epochs]


def is_student_alone(config, path):
    alone = read_config(path)
    assert bare_model(config) == bare_model(alone)
    assert config.train_dataloader.dataset == alone.train_dataloader.dataset


@pytest.mark.parametrize('name', CIFAR)
def test_cifar_settings(name):
    student, alphas, batch, last_drop, student_taps, teacher_taps = CIFAR[name]
    config = read_config(f'configs/lckd/cifar100_{name}.py')
    folder = 'teachers' if student == 'wrn28-4' else 'baselines'  # it is the other settings' teacher
    is_student_alone(config, f'configs/{folder}/cifar100_{student}.py')
    assert config.train_dataloader.batch_size == batch and config.train_cfg.max_epochs == 200
    optimizer = config.optim_wrapper.optimizer
    assert optimizer == dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    expected = [0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.1 * (last_drop or 1 / 100)]
    assert learning_rates(config, [0, 99, 100, 149, 150, 174, 175]) == pytest.approx(expected)
    restart, *others = config.custom_hooks
    assert restart.epochs == [100, 150] + [175] * bool(last_drop)
    changes = [(hook.loss, hook.milestones, hook.weights) for hook in others]
    assert changes == ([] if alphas[0] == alphas[1] else [('lipschitz', [120], [alphas[1] / 200])])
    assert sides(config.model.taps) == (student_taps, teacher_taps)
    assert config.model.teacher.norm_stats == 'batch'
    lipschitz = dict(type='mmlckd.LipschitzKDLoss', loss_weight=alphas[0] / 200, distance='absolute', connectors=True)
    # OFD's loss is a sum over entries, divided by the batch
    ofd = dict(type='mmlckd.OFDLoss', loss_weight=1 / 1000, connectors=True)
    assert config.model.losses == dict(ofd=ofd, lipschitz=lipschitz)
    processing = config.data_preprocessor
    assert (processing.mean, processing.std) == ([125.3, 123.0, 113.9], [63.0, 62.1, 66.7])


@pytest.mark.parametrize('name', IMAGENET)
def test_imagenet_settings(name):
    config = read_config(f'configs/lckd/imagenet_{name}.py')
    is_student_alone(config, f'configs/baselines/imagenet_{IMAGENET[name]}.py')
    assert config.train_dataloader.batch_size * 8 == 96 and config.train_cfg.max_epochs == 100
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay, optimizer.nesterov) == (0.1, 0.9, 1e-4, True)
    # the authors count epochs from 1: count 30 is epoch 29 here
    assert learning_rates(config, [0, 28, 29, 58, 59, 88, 89, 99]) == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4]
    )
    assert config.model.losses == dict(
        ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-4, connectors=True),
        lipschitz=dict(
            type='mmlckd.LipschitzKDLoss', loss_weight=2000 / (10_000 * 96), distance='absolute', connectors=True
        ),
    )
    assert config.model.teacher.norm_stats == 'batch'
    assert sides(config.model.taps)[1] == 'resnet_preact'


def test_mobilenet_is_the_one_of_the_table_and_its_taps_are_batch_norms():
    config = read_config('configs/baselines/imagenet_mobilenet.py')
    init_default_scope('mmpretrain')
    model = MODELS.build(bare_model(config)).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) // 10_000 == 423  # 4.23 M
    assert {type(module).__name__ for name, module in model.named_modules() if name.endswith('.act')} == {'ReLU'}
    taps, _ = sides(read_config('configs/lckd/imagenet_resnet50_to_mobilenet.py').model.taps)
    channels = []
    for tap in taps:
        norm = model.get_submodule(tap['module'].removesuffix('.act'))
        channels.append(norm.num_features)

        def check(module, args, norm=norm):
            assert args[0].min() < 0  # before its ReLU

        norm.act.register_forward_pre_hook(check)
    model(torch.randn(1, 3, 64, 64))
    assert channels == [128, 256, 512, 1024]


@pytest.mark.parametrize(
    'path', sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs/lckd').glob('*_scale_free.py'))
)
def test_variants_with_the_projects_own_loss_differ_in_the_loss_alone(path):
    config, protocol = read_config(path), read_config(path.replace('_scale_free', ''))
    assert config.model.losses.pop('lipschitz') == dict(type='mmlckd.LipschitzKDLoss', connectors=True, max_share=0.2)
    protocol.model.losses.pop('lipschitz')
    assert config.model == protocol.model and config.train_dataloader == protocol.train_dataloader


def wrn_by_hand(backbone, x):
    """The three tapped maps and the last one of a WideResNet, batch norms on the batch's own statistics."""

    def norm(bn, x):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
        return (x - mean) / (var + bn.eps).sqrt() * bn.weight.view(-1, 1, 1) + bn.bias.view(-1, 1, 1)

    x, maps = backbone.conv1(x), []
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3):
        for block in stage:
            first = norm(block.bn1, x)
            if stage is not backbone.layer1 and block is stage[0]:
                maps.append(first)
            inside = block.conv2(norm(block.bn2, block.conv1(first.relu())).relu())
            x = inside + (block.shortcut(first.relu()) if block.shortcut is not None else x)
    return [*maps, norm(backbone.bn, x)]


def test_a_step_of_setting_c_is_the_published_sum():
    torch.manual_seed(0)
    config = read_config('configs/lckd/cifar100_wrn28-4_to_wrn16-2.py')
    init_default_scope('mmpretrain')
    teacher = MODELS.build(bare_model(read_config(config.model.teacher.config)))
    teacher.init_weights()
    for module in teacher.modules():  # a trained teacher's batch norms are not at 1 and 0
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.5)
    config.model.teacher.checkpoint = None
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    model.init_weights()
    model.distiller.teacher.model.load_state_dict(teacher.state_dict())
    model.double()
    teacher.double()
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    labels = torch.tensor([3, 14, 15, 92])
    data = model.data_preprocessor(
        dict(inputs=list(images), data_samples=[DataSample().set_gt_label(int(label)) for label in labels]), True
    )
    losses = model(data['inputs'].double(), data['data_samples'], mode='loss')

    mean, std = (torch.tensor(value).view(3, 1, 1).double() for value in ([125.3, 123.0, 113.9], [63.0, 62.1, 66.7]))
    x = (images - mean) / std
    student_maps, teacher_maps = wrn_by_hand(model.backbone, x), wrn_by_hand(teacher.backbone, x)
    logits = model.head.fc(student_maps[-1].relu().mean((2, 3)))
    assert losses['student.loss'].item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)

    connected = []
    for student_map, connector in zip(student_maps, model.distiller.connectors.values()):
        feat = F.conv2d(student_map, connector[0].weight)
        connected.append(
            (feat - feat.mean((0, 2, 3), keepdim=True))
            / (feat.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        )
    ofd = 0.0
    for i, (student_map, teacher_map, tap) in enumerate(zip(connected, teacher_maps, WRN_TAPS)):
        norm = teacher.get_submodule(tap)
        margins = []
        for s, m in zip(norm.weight.abs().tolist(), norm.bias.tolist()):
            tail = normal.cdf(-m / s)
            margins.append(
                m - s * math.exp(-((m / s) ** 2) / 2) / math.sqrt(2 * math.pi) / tail if tail > 0.001 else -3 * s
            )
        target = torch.maximum(teacher_map, torch.tensor(margins).view(-1, 1, 1))
        ofd += ((student_map - target) ** 2 * ((student_map > target) | (target > 0))).sum() / 2 ** (2 - i)
    assert losses['distiller.loss_ofd'].item() == pytest.approx(ofd.item() / 4 / 1000, rel=1e-6)

    lipschitz = 0.0
    for k in range(2):
        norms = []
        for maps in (connected, teacher_maps):
            before, after = F.adaptive_avg_pool2d(maps[k], maps[k + 1].shape[2:]).flatten(2), maps[k + 1].flatten(2)
            norms.append(torch.linalg.svdvals(before @ after.mT / after.shape[2])[:, 0])
        lipschitz += ((norms[0] - norms[1]) ** 2).mean() / 2 ** (2 - k)
    assert losses['distiller.loss_lipschitz'].item() == pytest.approx(
        0.25 * lipschitz.item() / 200, rel=1e-5
    )  # ten power iterations

    total, _ = model.parse_losses(losses)
    expected = F.cross_entropy(logits, labels).item() + ofd.item() / 4000 + 0.25 * lipschitz.item() / 200
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_the_pipeline_is_torchvisions_on_the_same_seed():
    from mmengine.dataset import Compose
    from mmpretrain.registry import TRANSFORMS
    from torchvision import transforms

    config = read_config('configs/baselines/cifar100_wrn16-4.py')
    init_default_scope('mmpretrain')
    ours = Compose([TRANSFORMS.build(step) for step in config.train_dataloader.dataset.pipeline])
    theirs = transforms.Compose(
        [
            transforms.Pad(4, padding_mode='reflect'),
            transforms.RandomHorizontalFlip(),
            transforms.RandomCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(np.array([125.3, 123.0, 113.9]) / 255.0, np.array([63.0, 62.1, 66.7]) / 255.0),
        ]
    )
    preprocess = MODELS.build(dict(config.data_preprocessor, type='ClsDataPreprocessor'))
    rng = np.random.default_rng(0)
    seen = set()
    for seed in range(20):
        image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        torch.manual_seed(seed)
        packed = ours(dict(img=image, gt_label=0))
        one = preprocess(dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']]))['inputs'][0]
        torch.manual_seed(seed)
        other = theirs(transforms.ToPILImage()(image))
        assert torch.allclose(one, other, atol=1e-6)
        seen.add(torch.equal(packed['inputs'], torch.from_numpy(image).permute(2, 0, 1)))
    assert seen == {False}  # 1 / 162 of the draws leave an image as it is; none of these
