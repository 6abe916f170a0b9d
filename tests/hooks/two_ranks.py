"""A bounded training on two processes whose images differ in size; every rank checks that its model is the other's."""

from __future__ import annotations

import atexit
import sys

import torch
from mmengine.dist import all_gather_object, get_rank
from mmengine.runner import Runner
from small_network import Model
from torch import distributed
from torch.utils.data import DataLoader

from mmlckd.cli.processes import leave_group

distributed.init_process_group('gloo')
atexit.register(leave_group)
torch.manual_seed(0)
model = Model()
generator = torch.Generator().manual_seed(get_rank())
data = [
    dict(inputs=torch.randn(2, 8 + 2 * get_rank(), 6, generator=generator), labels=torch.tensor(i % 3))
    for i in range(8)
]
runner = Runner(
    model,
    sys.argv[1],
    DataLoader(data, batch_size=2),
    train_cfg=dict(by_epoch=False, max_iters=8),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.5)),
    default_scope='mmengine',
    experiment_name='two_ranks',
    launcher='pytorch',
    env_cfg=dict(dist_cfg=dict(backend='gloo')),
    default_hooks=dict(logger=None, checkpoint=None),
    custom_hooks=[dict(type='mmlckd.SpectralNormHook', interval=2, layers=['conv', 'fc'], max_norm=0.5)],
    cfg=dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None)),
)
runner.train()
weights = all_gather_object(dict(model.named_parameters()))
assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]), 'the ranks have gone apart'
