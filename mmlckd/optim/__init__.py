"""Optimizer wrappers that MMEngine lacks."""

from __future__ import annotations

from .cpu_amp_optim_wrapper import CpuAmpOptimWrapper

__all__ = ['CpuAmpOptimWrapper']
