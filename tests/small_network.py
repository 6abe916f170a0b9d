"""A network that trains in milliseconds, for tests of hooks and checkpoints."""

from __future__ import annotations

from mmengine.model import BaseModel
from torch import nn


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
