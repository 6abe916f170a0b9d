"""The guards that tools/train.py sets up, for a notebook or a script that trains by MMEngine's Runner."""

from __future__ import annotations

from mmengine.config import Config

from mmlckd.checkpoints import install_safe_loader
from mmlckd.cli import check_prerequisites
from mmlckd.config import is_distiller, without_own_scope
from mmlckd.resumability import make_resumable
from mmlckd.validation import check_distiller, check_run


def prepare(config: Config) -> Config:
    """Set a config up as tools/train.py does, and check what its run needs.

        config = Config.fromfile('recipe.py')
        config.work_dir = 'work_dirs/recipe'
        Runner.from_cfg(mmlckd.prepare(config)).train()

    Checkpoints are read without running code in them. The run ends where losses are no longer finite, and where the
    model would not fit what is loaded. It is checkpointed so that it can be resumed to the same weights.

    Args:
        config: Of a training; changed in place.

    Returns:
        The same config.

    Raises:
        ImportError: A detector is asked for and mmcv has no compiled operators.
        FileNotFoundError: Data or a checkpoint does not exist.
        ValueError: A field has a wrong form, or an annotation is broken.

    Source: this project.
    """
    install_safe_loader()
    check_run(without_own_scope(config))
    if is_distiller(config.model):
        check_distiller(config.model)
    hooks = config.setdefault('default_hooks', {})
    hooks.setdefault('finite_loss', dict(type='mmlckd.FiniteLossHook'))
    hooks.setdefault('run_check', dict(type='mmlckd.RunCheckHook'))
    make_resumable(config)
    check_prerequisites(config)
    return config
