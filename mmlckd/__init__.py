"""Lipschitz-continuity-guided knowledge distillation for OpenMMLab."""

from __future__ import annotations

import mmcv
import mmengine
import torch
from mmengine.utils import digit_version

from .version import __version__

# torch 2.0 is the first with torch.func. There is no upper bound: 2.15 works too.
_LOWEST = ((torch, '2.0.0'), (mmengine, '0.10.0'), (mmcv, '2.0.0'))


def _check_versions(lowest=_LOWEST) -> None:
    for package, version in lowest:
        if digit_version(package.__version__) < digit_version(version):
            raise ImportError(
                f'mmlckd needs {package.__name__} >={version} and found {package.__version__}: '
                "install a later one (the README's section on installing names the packages)"
            )


_check_versions()

# Only after the versions are known to work:
from .config import name_packages  # noqa: E402
from .registry import DATASETS, HOOKS, LOOPS, MODELS, OPTIM_WRAPPERS  # noqa: E402
from .switches import let_none_switch_hooks_off  # noqa: E402

let_none_switch_hooks_off()
name_packages()

__all__ = ['DATASETS', 'HOOKS', 'LOOPS', 'MODELS', 'OPTIM_WRAPPERS', '__version__', 'make_recipe', 'prepare']


def __getattr__(name: str):
    """``mmlckd.make_recipe`` and ``mmlckd.prepare`` are imported when asked for: they need most of the package."""
    if name == 'make_recipe':
        from .recipes import make_recipe

        return make_recipe
    if name == 'prepare':
        from .preparing import prepare

        return prepare
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
