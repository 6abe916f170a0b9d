"""Data sets with options that the host libraries lack."""

from __future__ import annotations

from .cifar100 import CIFAR100

__all__ = ['CIFAR100']
