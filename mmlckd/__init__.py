"""Lipschitz-continuity-guided knowledge distillation for OpenMMLab."""

import mmcv
import mmengine
from mmengine.utils import digit_version

from .version import __version__

_SUPPORTED = ((mmengine, '0.10.0', '1.0.0'), (mmcv, '2.0.0', '3.0.0'))
for _package, _lowest, _first_unsupported in _SUPPORTED:
    if not digit_version(_lowest) <= digit_version(_package.__version__) < digit_version(_first_unsupported):
        raise ImportError(f'mmlckd needs {_package.__name__} >={_lowest},<{_first_unsupported} and found {_package.__version__}: '
                          f'run `pip install "onedl-{_package.__name__}>={_lowest},<{_first_unsupported}"`, or the package '
                          'of that name from OpenMMLab')

from .registry import HOOKS, MODELS  # noqa: E402  after the versions are known to work

__all__ = ['HOOKS', 'MODELS', '__version__']
