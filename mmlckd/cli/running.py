"""Running a tool: its config read, its folder looked at, its errors in one sentence."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Callable

from mmengine.config import Config

from mmlckd.checkpoints import install_safe_loader, trust_checkpoints
from mmlckd.config import override, read_config

from .errors import sentence_of


def run_tool(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse arguments and run; a wrong input ends in one sentence and exit code 1, an interruption in 130, SIGTERM in 143."""
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    logging.raiseExceptions = args.debug  # a log line that finds the disk full is no reason for a traceback
    install_safe_loader()
    if getattr(args, 'trust_checkpoints', False):
        trust_checkpoints()
    try:
        main(args)
    except Exception as error:
        sentence = None if args.debug else sentence_of(error)
        if sentence is None:
            raise
        print(f'error: {sentence}', file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print('interrupted; go on with --resume', file=sys.stderr)
        sys.exit(130)


def read_run_config(args: argparse.Namespace) -> Config:
    """The config a tool is given, with the overrides of its command line.

    Raises:
        FileNotFoundError, ValueError: There is no such config, it is broken, has no model, or an override does not fit it.
    """
    config = override(read_config(args.config), args.cfg_options)
    if not isinstance(config.get('model'), dict):
        raise ValueError(f'config {args.config!r} has no model: give one that trains a network, not a part of one')
    return config


def load_run_config(args: argparse.Namespace) -> Config:
    """The config a tool is to run: read, overridden, its launcher and work folder set.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_run_config`; or the config asks for FSDP or DeepSpeed.
        NotADirectoryError, PermissionError: The work folder cannot be made or written.
    """
    config = read_run_config(args)
    _refuse_sharding(config)
    config.launcher = args.launcher
    config.work_dir = args.work_dir or config.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    check_folder('--work-dir', config.work_dir)
    return config


def check_folder(option: str, folder: str | Path) -> None:
    """See before a run that what it will write can be written; nothing is made yet.

    Raises:
        NotADirectoryError, PermissionError: The folder that an option names is a file, or cannot be made or written.
    """
    there = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f'{option} is {str(folder)!r}, and {str(there)!r} is a file: name a folder')
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(
            f'{option} is {str(folder)!r}, and {str(there)!r} may not be written: name another, or change its rights'
        )


def _refuse_sharding(config: Config) -> None:
    wrapper = str((config.get('model_wrapper_cfg') or {}).get('type', ''))
    asked = {
        'strategy': config.get('strategy'),
        'runner_type': config.get('runner_type'),
        'model_wrapper_cfg.type': wrapper if 'FullySharded' in wrapper else None,
    }
    for field, value in asked.items():
        if value not in (None, 'Runner'):
            raise ValueError(
                f'{field} is {value!r}, and FSDP and DeepSpeed are not supported: they shard what is trained, here the small '
                'student, and not the frozen teacher; take it out and train by DDP, tools/dist_train.sh'
            )
