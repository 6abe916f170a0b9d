"""This package's registries, children of MMEngine's. Any config names an entry as ``mmlckd.Name``."""

from __future__ import annotations

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmlckd',
    locations=['mmlckd.losses', 'mmlckd.distillers', 'mmlckd.backbones'],
)
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='mmlckd', locations=['mmlckd.datasets'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmlckd', locations=['mmlckd.hooks', 'mmlckd.resumability'])
OPTIM_WRAPPERS = Registry('optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='mmlckd', locations=['mmlckd.optim'])
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope='mmlckd', locations=['mmlckd.resumability'])
