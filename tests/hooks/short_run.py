"""A few iterations of a distiller under the real Runner."""

from __future__ import annotations

import copy

import torch
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from mmlckd.registry import MODELS


class Images(Dataset):
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


def runner(family, tmp_path, hooks, connectors=True, iters=4, accumulate=1, epochs=None, **kwargs):
    """Runner of some iterations, or of some epochs of two iterations; each leaves a checkpoint."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='mmlckd.LipschitzDistiller',
            student=small(family.student, 1),
            teacher=dict(model=small(family.teacher, 2)),
            taps=['backbone.layer2', 'backbone.layer3'],
            losses=dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=connectors)),
        )
    )
    loop = dict(by_epoch=True, max_epochs=epochs) if epochs else dict(by_epoch=False, max_iters=iters)
    return Runner(
        model,
        str(tmp_path),
        DataLoader(Images(family), batch_size=2, collate_fn=collate),
        train_cfg=loop,
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1), accumulative_counts=accumulate
        ),
        default_hooks=dict(logger=None, checkpoint=dict(type='CheckpointHook', by_epoch=bool(epochs), interval=1)),
        custom_hooks=hooks,
        default_scope=family.scope,
        experiment_name=tmp_path.name,
        **kwargs,
    )
