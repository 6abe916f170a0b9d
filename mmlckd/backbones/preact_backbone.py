"""The base of the pre-activation networks for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# N(0, sqrt(2 / (k * k * out_channels))) for convolutions, 1 and 0 for batch norms.
INIT_CFG = (dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer='_BatchNorm'))


class PreActBackbone(BaseModule):
    """A stem, three stages ``layer1`` to ``layer3``, and a batch norm ``bn`` and a ReLU after the last stage.

    Args:
        stem: Names and modules before the stages.
        stages: The blocks of each stage.
        out_channels: Channels after the last stage.
        out_indices: Stages (0 to 2) whose outputs are returned. That of the last stage is taken after the final batch
            norm and ReLU.
        frozen_stages: Stages up to this one, and the stem, are frozen in evaluation mode; -1 freezes nothing.
        norm_eval: Keep batch norms in evaluation mode while training.
        init_cfg: MMEngine initialisation.

    Raises:
        ValueError: A stage is out of range.
    """

    def __init__(
        self,
        stem: dict[str, nn.Module],
        stages: Sequence[Sequence[nn.Module]],
        out_channels: int,
        out_indices: Sequence[int] = (2,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: None | dict | Sequence[dict] = INIT_CFG,
    ):
        super().__init__(init_cfg=list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        if not set(out_indices) <= {0, 1, 2} or frozen_stages not in (-1, 0, 1, 2):
            raise ValueError(
                f'out_indices is {tuple(out_indices)} and frozen_stages {frozen_stages}: stages are 0, 1 and 2'
            )
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.stem = tuple(stem)
        for name, module in stem.items():
            self.add_module(name, module)
        for stage, blocks in enumerate(stages):
            self.add_module(f'layer{stage + 1}', nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(out_channels)
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) to a tuple of maps, one for each of ``out_indices``."""
        for name in self.stem:
            x = getattr(self, name)(x)
        outs = []
        for stage in range(3):
            x = getattr(self, f'layer{stage + 1}')(x)
            if stage in self.out_indices:
                outs.append(F.relu(self.bn(x)) if stage == 2 else x)
        return tuple(outs)

    def train(self, mode: bool = True) -> PreActBackbone:
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages >= 0:
            names = [*self.stem, *(f'layer{stage + 1}' for stage in range(self.frozen_stages + 1))]
            for name in names:
                getattr(self, name).eval().requires_grad_(False)
