"""A network and a run of MMEngine that take a moment, with this package's hooks."""

from __future__ import annotations

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmlckd.checkpoints import install_safe_loader

SAFE = dict(type='mmlckd.SafeCheckpointHook')
install_safe_loader()
LOOP = ('type', 'by_epoch', 'max_epochs', 'max_iters', 'val_interval')


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, inputs, labels, mode='tensor'):
        logits = self.fc(self.bn(self.conv(inputs)).relu().mean((2, 3)))
        return dict(loss=nn.functional.cross_entropy(logits, labels)) if mode == 'loss' else logits


class Accuracy(BaseMetric):
    def process(self, data_batch, data_samples):
        found = torch.stack(list(data_samples)).argmax(1)
        self.results.append(found.eq(data_batch['labels']).float().mean().item())

    def compute_metrics(self, results):
        return dict(accuracy=sum(results) / len(results))


class QuietRunner(Runner):
    def _log_env(self, env_cfg):
        """It asks compilers for their versions, which takes longer than these runs."""


def samples(count=8):
    generator = torch.Generator().manual_seed(0)
    return [dict(inputs=torch.randn(2, 8, 6, generator=generator), labels=torch.tensor(i % 3)) for i in range(count)]


def loader(count=8):
    return DataLoader(samples(count), batch_size=2)


def runner(folder, hooks, checkpoint, accumulate=1, resume=False, validate=False, data=None, **options):
    """Runner of four iterations an epoch; ``resume`` may name the checkpoint."""
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
        default_scope='mmengine',
        experiment_name=f'{folder.name}_{len(list(folder.rglob("*")))}_{torch.rand(1).item()}',
        resume=bool(resume),
        load_from=str(resume) if resume and resume is not True else None,
        cfg=dict(resume=bool(resume), load_from=str(resume)),
        **validation,
        **options,
    )


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth*'))
