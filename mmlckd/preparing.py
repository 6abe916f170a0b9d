"""The guards of tools/train.py, for a notebook or a script that calls MMEngine's Runner itself."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config

from mmlckd.checkpoints import install_safe_loader, newest_checkpoint
from mmlckd.cli import check_config, check_folder, check_prerequisites, refuse_sharding
from mmlckd.config import without_own_scope
from mmlckd.resumability import make_resumable


def prepare(config: Config) -> Config:
    """Give a training the guards that tools/train.py gives it.

        config = Config.fromfile('recipe.py')
        Runner.from_cfg(mmlckd.prepare(config)).train()

    - The config is checked, and the data and weights that it names must be there.
    - From now on this process reads checkpoints without running code in them.
    - The training stops where the loss is no longer finite.
    - A kill loses nothing: checkpoints are written whole, and with ``config.resume = True`` the training goes on from
      the last sound one of the work folder, if there is one, to the same weights.
    - With ``randomness.deterministic = True`` cuBLAS gets the workspace that this needs, unless this process has
      multiplied on a GPU before.
    - ``work_dir`` is ``work_dirs/<config name>`` where the config sets none; ``launcher`` is 'none'.

    A hook that the config sets to None stays off.

    Args:
        config: Of a training. It is changed in place. A second call changes nothing.

    Returns:
        The same config.

    Raises:
        ImportError: A detector is asked for and mmcv has no compiled operators.
        FileNotFoundError: A data folder, a file that an annotation names, or a checkpoint does not exist.
        NotADirectoryError, PermissionError: The work folder cannot be made or written.
        ValueError: There is no model, a field has a wrong form, an annotation is broken, or FSDP or DeepSpeed is asked
            for.

    Source: this project.
    """
    install_safe_loader()
    check_config(without_own_scope(config), config.filename)
    refuse_sharding(config)
    config.setdefault('launcher', 'none')
    if not config.get('work_dir'):
        config.work_dir = str(Path('work_dirs') / Path(config.filename or 'training').stem)
    check_folder('work_dir', config.work_dir)
    if config.get('resume') and not config.get('load_from'):
        config.load_from = newest_checkpoint(config.work_dir)
        config.resume = config.load_from is not None
    config.setdefault('default_hooks', {})
    config.default_hooks.setdefault('finite_loss', dict(type='mmlckd.FiniteLossHook'))
    make_resumable(config)
    if config.get('randomness', {}).get('deterministic'):
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # without it torch refuses matrix products
    check_prerequisites(config)
    return config
