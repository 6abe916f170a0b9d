"""What the command-line tools share: configs from arguments, processes, and errors in one sentence."""

import argparse
import atexit
import logging
import os
import sys
import time
from pathlib import Path
from typing import Callable, Union

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import print_log

from mmlckd.checkpoint import trust_checkpoints
from mmlckd.config import override, read_config
from mmlckd.errors import sentence_of

# What each launcher calls rank, world size and local rank.
_RANK_VARIABLES = dict(
    pytorch=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'))


class Overrides(DictAction):
    """MMEngine's KEY=VALUE arguments, whose mistakes argparse reports."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError) as error:
            raise argparse.ArgumentError(self, f'{values} are to be KEY=VALUE, without spaces and with balanced brackets') from error


def add_override_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every tool that reads a config and checkpoints."""
    parser.add_argument('--cfg-options', nargs='+', action=Overrides, metavar='KEY=VALUE', default={},
                        help='override config fields, nested ones with dots and lists in quotes: '
                        'train_cfg.max_epochs=1 model.taps="[backbone.layer3,backbone.layer4]"')
    add_trust_argument(parser)


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--trust-checkpoints', action='store_true',
                        help='unpickle whatever the checkpoints hold, which runs any code in them: only for files you made yourself')


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every tool that runs a config."""
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and figures (default: work_dirs/<config name>)')
    add_override_arguments(parser)
    parser.add_argument('--launcher', choices=('none', *_RANK_VARIABLES), default='none', help='how processes are started (default: none)')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by launchers that pass it; not for hand use')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')


def run_tool(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse arguments and run; a wrong input ends in one sentence and exit code 1, an interruption in 130, SIGTERM in 143."""
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    logging.raiseExceptions = args.debug  # a log line that finds the disk full is no reason for a traceback
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


def check_folder(option: str, folder: Union[str, Path]) -> None:
    """See before a run that what it will write can be written; nothing is made yet.

    Raises:
        NotADirectoryError, PermissionError: The folder that an option names is a file, or cannot be made or written.
    """
    there = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f'{option} is {str(folder)!r}, and {str(there)!r} is a file: name a folder')
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f'{option} is {str(folder)!r}, and {str(there)!r} may not be written: name another, or change its rights')


def _refuse_sharding(config: Config) -> None:
    wrapper = str((config.get('model_wrapper_cfg') or {}).get('type', ''))
    asked = {'strategy': config.get('strategy'), 'runner_type': config.get('runner_type'),
             'model_wrapper_cfg.type': wrapper if 'FullySharded' in wrapper else None}
    for field, value in asked.items():
        if value not in (None, 'Runner'):
            raise ValueError(f'{field} is {value!r}, and FSDP and DeepSpeed are not supported: they shard what is trained, here the small '
                             'student, and not the frozen teacher; take it out and train by DDP, tools/dist_train.sh')


def init_processes(config: Config) -> None:
    """Join the other processes of a CPU job; with a GPU MMEngine does it.

    MMEngine's own start-up picks a GPU for each process, which fails without one. Here the group is gloo's, the DDP
    wrapper gets no device, and synchronised batch norms, which are GPU only, become ordinary ones.
    """
    if config.launcher == 'none':
        return
    values = [os.environ.get(name) for name in _RANK_VARIABLES[config.launcher]]
    if None in values:
        raise ValueError(f'--launcher {config.launcher} needs {", ".join(_RANK_VARIABLES[config.launcher])} in the environment: '
                         'start the tool through tools/dist_train.sh, tools/slurm_train.sh or mpirun')
    if torch.cuda.is_available():
        return
    os.environ.update(RANK=values[0], WORLD_SIZE=values[1], LOCAL_RANK=values[2])
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    torch.distributed.init_process_group('gloo')
    atexit.register(_leave_group)
    if config.get('model_wrapper_cfg') is None:
        config.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
                                        find_unused_parameters=config.get('find_unused_parameters', False))
    if any([_replace_sync_bn(config.model), config.pop('sync_bn', None)]):
        print_log('SyncBN needs a GPU: BN takes its place, each process normalising by its own share of the batch',
                  'current', logging.WARNING)


def _leave_group() -> None:
    """Before the interpreter ends: a thread of gloo's that is about to let go of its last tensor waits for the interpreter's lock, is
    refused it once that is ending, and then aborts the process."""
    time.sleep(0.2)  # in which the lock is free
    torch.distributed.destroy_process_group()


def make_resumable(config: Config) -> None:
    """Give a run the hooks and the loop that lose nothing to a kill, in the place of MMEngine's; hooks of other types stay."""
    hooks = config.setdefault('default_hooks', {})
    hooks.setdefault('random_state', dict(type='mmlckd.RandomStateHook'))
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    if checkpoint is not None and checkpoint.get('type') == 'CheckpointHook':
        checkpoint.type = 'mmlckd.SafeCheckpointHook'
        hooks.setdefault('preemption', dict(type='mmlckd.PreemptionHook'))
    loop = config.get('train_cfg') or {}
    if loop.pop('by_epoch', False) or loop.get('type') == 'EpochBasedTrainLoop':
        loop['type'] = 'mmlckd.ResumableEpochLoop'


def _replace_sync_bn(node) -> bool:
    """Turn norm layers of type SyncBN into BN throughout a model config; whether there were any."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ()
    found = any([_replace_sync_bn(child) for child in children])
    if isinstance(node, dict) and node.get('type') == 'SyncBN':
        node['type'] = 'BN'
        return True
    return found
