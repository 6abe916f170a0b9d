"""Registries of this package, children of MMEngine's: refer to an entry as ``mmlckd.Name`` from any config."""

from __future__ import annotations

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import Registry

def class_of(spec: str | type | None, registry: Registry) -> type | None:
    """The class that a config's ``type`` means: a name, with or without a scope, or the class itself; or None."""
    if not isinstance(spec, str):
        return spec
    try:
        return registry.get(spec)
    except RuntimeError:  # MMEngine's answer to a name that no registry has
        return None


def same_type(spec: str | type | None, registry: Registry, cls: type) -> bool:
    """Whether a config's ``type`` means that class, in whatever form it is given."""
    return class_of(spec, registry) is cls


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
