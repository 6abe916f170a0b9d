"""Mixed precision where there is no GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils._pytree import tree_map

from mmlckd.registry import OPTIM_WRAPPERS
from mmlckd.unwrapped import unwrapped


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """``AmpOptimWrapper`` for CPUs: train under bfloat16 autocast.

    bfloat16 has float32's range, so no loss is scaled.

    Args:
        modules: Names of the modules that run under autocast; their results are converted to float32. None: the whole
            model. On the CPU mmcv's operators do not take bfloat16, so detectors need ``['backbone', 'neck']`` here.
        kwargs: ``OptimWrapper``'s.

    Source: this project.
    """

    def __init__(self, modules: Sequence[str] | None = None, **kwargs):
        super().__init__(**kwargs)
        self.modules = modules

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(super().optim_context(model))
            if self.modules is None:
                stack.enter_context(torch.autocast('cpu', torch.bfloat16))
            for name in self.modules or ():
                _autocast_inside(unwrapped(model).get_submodule(name), stack)
            yield


def _autocast_inside(module: nn.Module, stack: ExitStack) -> None:
    """Run a module's forward under autocast and convert its results to float32, until the stack is left."""
    inside: list[ExitStack] = []

    def enter(module: nn.Module, args: tuple) -> None:
        inside.append(ExitStack())
        inside[-1].enter_context(torch.autocast('cpu', torch.bfloat16))

    def leave(module: nn.Module, args: tuple, output: Any) -> Any:
        inside.pop().close()
        return tree_map(_widened, output)

    def leave_all() -> None:
        while inside:
            inside.pop().close()

    stack.callback(leave_all)  # an error in the module's forward skips its hook
    stack.callback(module.register_forward_pre_hook(enter).remove)
    stack.callback(module.register_forward_hook(leave).remove)


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
