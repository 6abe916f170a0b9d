"""Mixed precision where there is no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils._pytree import tree_map

from mmlckd.registry import OPTIM_WRAPPERS
from mmlckd.unwrapped import unwrapped


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Train under bfloat16 autocast on the CPU, as MMEngine's ``AmpOptimWrapper``, which wants a GPU, does there.

    bfloat16 has float32's range, so no loss is scaled.

    Args:
        modules: Names of the modules that run under autocast; they give float32. None: the whole model. mmcv's operators
            know no bfloat16 on the CPU, so detectors have ``['backbone', 'neck']`` here.
        kwargs: ``OptimWrapper``'s.

    Source: this project.
    """

    def __init__(self, modules: Sequence[str] | None = None, **kwargs):
        super().__init__(**kwargs)
        self.modules = modules

    @contextmanager
    def optim_context(self, model: nn.Module):
        with ExitStack() as stack:
            stack.enter_context(super().optim_context(model))
            if self.modules is None:
                stack.enter_context(torch.autocast('cpu', torch.bfloat16))
            for name in self.modules or ():
                _autocast_inside(unwrapped(model).get_submodule(name), stack)
            yield


def _autocast_inside(module: nn.Module, stack: ExitStack) -> None:
    """Until the stack is left, run a module's forward under autocast and give its results as float32."""
    inside = []

    def enter(module, args):
        inside.append(ExitStack())
        inside[-1].enter_context(torch.autocast('cpu', torch.bfloat16))

    def leave(module, args, output):
        inside.pop().close()
        return tree_map(
            lambda value: value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value,
            output,
        )

    stack.callback(module.register_forward_pre_hook(enter).remove)
    stack.callback(module.register_forward_hook(leave, always_call=True).remove)
