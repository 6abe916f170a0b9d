"""Backbones that the host libraries lack."""

from .wide_resnet import WideResNet

__all__ = ['WideResNet']
