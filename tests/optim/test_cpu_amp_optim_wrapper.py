"""bfloat16 where it is asked for, float32 around it, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmlckd.compatibility import autocast_is_on
from mmlckd.registry import OPTIM_WRAPPERS


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head, self.inside = nn.Linear(4, 4), nn.Linear(4, 2), []
        self.backbone.register_forward_hook(lambda module, args, output: self.inside.append(output.dtype))

    def forward(self, feat):
        feat = self.backbone(feat)
        return feat, self.head(feat)


def wrapper(model, **kwargs):
    return OPTIM_WRAPPERS.build(
        dict(type='mmlckd.CpuAmpOptimWrapper', optimizer=torch.optim.SGD(model.parameters(), lr=0.1), **kwargs)
    )


@pytest.mark.parametrize(
    'modules, dtypes', [(None, (torch.bfloat16,) * 3), (['backbone'], (torch.bfloat16, torch.float32, torch.float32))]
)
def test_precision_inside_after_and_beyond(modules, dtypes):
    model = Model()
    optimizer = wrapper(model, modules=modules)
    with optimizer.optim_context(model):
        feat, logits = model(torch.ones(1, 4))
    assert (model.inside[0], feat.dtype, logits.dtype) == dtypes
    optimizer.update_params(logits.float().sum())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert model(torch.ones(1, 4))[0].dtype == torch.float32  # outside the context all is as before


def test_an_error_leaves_autocast_and_hooks_behind_it():
    model = Model()
    hooks = len(model.backbone._forward_hooks)
    with pytest.raises(RuntimeError), wrapper(model, modules=['backbone']).optim_context(model):
        model(torch.ones(1, 5))  # fails inside the module
    assert not autocast_is_on('cpu')
    assert len(model.backbone._forward_hooks) == hooks and not model.backbone._forward_pre_hooks
