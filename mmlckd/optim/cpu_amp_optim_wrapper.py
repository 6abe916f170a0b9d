"""Mixed precision where there is no GPU."""

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmlckd.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Train under bfloat16 autocast on the CPU, as MMEngine's ``AmpOptimWrapper``, which wants a GPU, does there.

    bfloat16 has float32's range, so no loss is scaled. Arguments are ``OptimWrapper``'s.

    Source: this project.
    """

    @contextmanager
    def optim_context(self, model: nn.Module):
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
