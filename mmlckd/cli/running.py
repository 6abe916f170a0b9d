"""Running a tool: its config read, its folder looked at, its errors in one sentence."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Callable

from mmengine.config import Config
from mmengine.registry import MODEL_WRAPPERS, RUNNERS, init_default_scope
from mmengine.runner import Runner

from mmlckd.checkpoints import install_safe_loader, trust_checkpoints
from mmlckd.config import host_of, is_distiller, override, read_config, tool_command
from mmlckd.registry import class_of, same_type
from mmlckd.validation import check_distiller, check_run, in_words

from .errors import sentence_of


def run_tool(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse arguments and run.

    A wrong input ends in one sentence and exit code 1, an interruption by hand in 130, SIGTERM in 143.
    """
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    logging.raiseExceptions = args.debug  # a log line that cannot be written to a full disk needs no traceback
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
        FileNotFoundError, ValueError: There is no such config, it is broken, it has no model, an override does not fit
            it, or a field has a wrong form.
    """
    config = override(read_config(args.config), args.cfg_options)
    check_config(config, args.config)
    return config


def check_config(config: Config, name: str | None) -> None:
    """See that a config has a model, and that its fields have the right forms.

    Raises:
        ValueError: It has no model, or a field has a wrong form.
    """
    if config.get('model') is None:
        raise ValueError(f'config {name!r} has no model: give one that trains a network, not a part of one')
    check_run(config)
    if is_distiller(config.model):
        check_distiller(config.model)


def load_run_config(args: argparse.Namespace) -> Config:
    """The config a tool is to run: read, overridden, its launcher and work folder set.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_run_config`; or the config asks for FSDP or DeepSpeed.
        NotADirectoryError, PermissionError: The work folder cannot be made or written.
    """
    config = read_run_config(args)
    refuse_sharding(config)
    config.launcher = args.launcher
    config.work_dir = args.work_dir or config.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    check_folder('--work-dir', config.work_dir)
    return config


def enter_scope(config: Config) -> None:
    """Let names of the config's library be looked up from now on, in a tool that builds models itself."""
    host = host_of(config) or 'mmengine'
    init_default_scope(host)
    if find_spec(f'{host}.models') is not None:
        import_module(f'{host}.models')


def check_folder(option: str, folder: str | Path) -> None:
    """See before a run that what it will write can be written; nothing is made yet.

    Raises:
        NotADirectoryError, PermissionError: The folder that an option names is a file, or cannot be made or written.
    """
    wanted = Path(folder).absolute()
    there = next(path for path in (wanted, *wanted.parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f'{option} is {str(folder)!r}, and {str(there)!r} is a file: name a folder')
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(
            f'{option} is {str(folder)!r}, and {str(there)!r} may not be written: name another, or change its rights'
        )


def refuse_sharding(config: Config) -> None:
    """Refuse a config that asks for FSDP or DeepSpeed.

    Raises:
        ValueError: It does.
    """
    wrapper = (config.get('model_wrapper_cfg') or {}).get('type')
    kind, runner = class_of(wrapper, MODEL_WRAPPERS), config.get('runner_type')
    asked = {
        'strategy': config.get('strategy'),
        'runner_type': None if same_type(runner, RUNNERS, Runner) else runner,
        'model_wrapper_cfg.type': wrapper if 'FullyShardedDataParallel' in _bases(kind) else None,
    }
    for field, value in asked.items():
        if value is not None:
            raise ValueError(
                f'{field} is {in_words(value)}, and FSDP and DeepSpeed are not supported: they shard what is trained, '
                'which is the small student, and not the frozen teacher; take it out and train by DDP, '
                f'`{tool_command("bash tools/dist_train.sh")}`'
            )


def _bases(kind: type | None) -> set[str]:
    return {base.__name__ for base in getattr(kind, '__mro__', ())}
