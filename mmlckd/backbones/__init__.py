"""Backbones that the host libraries lack: networks of the CIFAR experiments."""

from __future__ import annotations

from .cifar_resnet import CifarResNet
from .pyramid_net import PyramidNet
from .wide_resnet import WideResNet

__all__ = ['CifarResNet', 'PyramidNet', 'WideResNet']
