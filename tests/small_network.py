"""A network that trains in milliseconds, and its data, for tests of hooks and checkpoints."""

from __future__ import annotations

import torch
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import DataLoader


class Model(BaseModel):
    """Convolutions, a batch norm and a linear layer, so small that their matrices can be written out."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.fc = nn.Linear(4, 3)

    def forward(self, inputs, labels, mode='tensor'):
        feat = self.conv2(self.bn(self.conv1(inputs)).relu())
        logits = self.fc(feat.relu().mean((2, 3)))
        return dict(loss=nn.functional.cross_entropy(logits, labels)) if mode == 'loss' else logits


def samples(count=8, seed=0):
    """Random inputs, and labels in turn."""
    generator = torch.Generator().manual_seed(seed)
    return [dict(inputs=torch.randn(2, 8, 6, generator=generator), labels=torch.tensor(i % 3)) for i in range(count)]


def loader(count=8, seed=0):
    """Batches of two."""
    return DataLoader(samples(count, seed), batch_size=2)
