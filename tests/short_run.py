"""Trainings under the real Runner that take a moment: of the small network, and of a small distiller."""

from __future__ import annotations

import copy

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.runner import Runner
from small_network import Model, loader
from torch.utils.data import DataLoader, Dataset

from mmlckd.checkpoints import install_safe_loader
from mmlckd.registry import MODELS

SAFE = dict(type='mmlckd.SafeCheckpointHook')
PLAIN = dict(type='CheckpointHook')
install_safe_loader()
LOOP = ('type', 'by_epoch', 'max_epochs', 'max_iters', 'val_interval')


class Accuracy(BaseMetric):
    def process(self, data_batch, data_samples):
        found = torch.stack(list(data_samples)).argmax(1)
        self.results.append(found.eq(data_batch['labels']).float().mean().item())

    def compute_metrics(self, results):
        return dict(accuracy=sum(results) / len(results))


class QuietRunner(Runner):
    def _log_env(self, env_cfg):
        """It asks compilers for their versions, which takes longer than these runs."""


def training(folder, hooks, checkpoint, accumulate=1, resume=False, validate=False, data=None, **options):
    """Runner of the small network, with four iterations an epoch; ``resume`` may name the checkpoint."""
    loop = {name: options.pop(name) for name in LOOP if name in options}
    by_epoch = 'max_epochs' in loop
    if 'type' not in loop:
        loop.setdefault('by_epoch', by_epoch)
    validation = dict(val_dataloader=loader(), val_cfg={}, val_evaluator=Evaluator(Accuracy())) if validate else {}
    return QuietRunner(
        options.pop('model', None) or Model(),
        str(folder),
        data or loader(),
        train_cfg=loop,
        optim_wrapper=options.pop('optim_wrapper', None)
        or dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=accumulate),
        default_hooks=dict(logger=None, checkpoint=dict(dict(by_epoch=by_epoch, interval=1), **checkpoint)),
        custom_hooks=hooks,
        default_scope=options.pop('default_scope', 'mmengine'),
        experiment_name=f'{folder.name}_{len(list(folder.rglob("*")))}_{torch.rand(1).item()}',
        resume=bool(resume),
        load_from=str(resume) if resume and resume is not True else None,
        cfg=dict(resume=bool(resume), load_from=str(resume)),
        **validation,
        **options,
    )


class Images(Dataset):
    """Four images: those of a family's batch, twice."""

    def __init__(self, family):
        self.batch = family.batch

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.batch['inputs'][index % 2], copy.deepcopy(self.batch['data_samples'][index % 2])


def collate(items):
    return dict(inputs=[image for image, _ in items], data_samples=[sample for _, sample in items])


def small(model, width):
    """A classifier's config with a backbone that takes milliseconds a step."""
    model = copy.deepcopy(model)
    model['backbone'] = dict(type='mmlckd.WideResNet', depth=10, widen_factor=width)
    model['head']['in_channels'] = 64 * width
    return model


def distillation(
    family, folder, hooks, connectors=True, iters=4, accumulate=1, epochs=None, resume=False, losses=None, view=None
):
    """Runner of a distiller, of some iterations, or of some epochs of two iterations; each leaves a checkpoint."""
    torch.manual_seed(0)
    losses = losses or dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=connectors))
    model = MODELS.build(
        dict(
            type='mmlckd.LipschitzDistiller',
            student=small(family.student, 1),
            teacher=dict(model=small(family.teacher, 2)),
            taps=['backbone.layer2', 'backbone.layer3'],
            losses=losses,
            view=view,
        )
    )
    sgd = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1)
    length = dict(max_epochs=epochs) if epochs else dict(max_iters=iters)
    return training(
        folder,
        hooks,
        PLAIN,
        model=model,
        data=DataLoader(Images(family), batch_size=2, collate_fn=collate),
        optim_wrapper=dict(optimizer=sgd, accumulative_counts=accumulate),
        default_scope=family.scope,
        resume=resume,
        randomness=dict(seed=0),  # MMEngine's default is one dict for all runners, and a resumed run writes there
        **length,
    )


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth*'))
