"""Which OpenMMLab package a module belongs to."""

from __future__ import annotations

from torch import nn

HOSTS = ('mmdet', 'mmseg', 'mmpretrain')


def host_of(module: nn.Module) -> str | None:
    """The OpenMMLab package that a module's class, or the nearest of its bases, comes from; None if no class does.

    A user's subclass of a detector is a detector too, whatever package it is defined in.
    """
    packages = (base.__module__.partition('.')[0] for base in type(module).__mro__)
    return next((package for package in packages if package in HOSTS), None)
