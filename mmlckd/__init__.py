"""Lipschitz-continuity-guided knowledge distillation for OpenMMLab."""

from __future__ import annotations

import mmcv
import mmengine
import torch
from mmengine.utils import digit_version

from .version import __version__

# torch 2.6 is the first whose safe loader takes this package's allow-list; mmcv 2.3 does not compile against 2.11.
_SUPPORTED = ((torch, '2.6.0', '2.11.0'), (mmengine, '0.10.0', '1.0.0'), (mmcv, '2.0.0', '3.0.0'))


def _check_versions(supported=_SUPPORTED) -> None:
    for package, lowest, unsupported in supported:
        if not digit_version(lowest) <= digit_version(package.__version__) < digit_version(unsupported):
            raise ImportError(
                f'mmlckd needs {package.__name__} >={lowest},<{unsupported} and found {package.__version__}: '
                "install one of that range (the README's section on installing names the packages)"
            )


_check_versions()

# Only after the versions are known to work:
from .registry import DATASETS, HOOKS, LOOPS, MODELS, OPTIM_WRAPPERS  # noqa: E402
from .switches import let_none_switch_hooks_off  # noqa: E402

let_none_switch_hooks_off()

__all__ = ['DATASETS', 'HOOKS', 'LOOPS', 'MODELS', 'OPTIM_WRAPPERS', '__version__', 'make_recipe']


def __getattr__(name: str):
    """``mmlckd.make_recipe``, imported when it is asked for: it needs most of the package."""
    if name == 'make_recipe':
        from .recipes import make_recipe

        return make_recipe
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
