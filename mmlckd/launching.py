"""What the command-line tools share: configs from arguments, processes, and errors in one sentence."""

import argparse
import errno
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Callable, Optional

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import print_log

from mmlckd.config import read_config

_PACKAGE = Path(__file__).resolve().parent
_TOOLS = _PACKAGE.parent / 'tools'

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

# What each launcher calls rank, world size and local rank.
_RANK_VARIABLES = dict(
    pytorch=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'))


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every tool that runs a config."""
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and figures (default: work_dirs/<config name>)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', default={},
                        help='override config fields, nested ones with dots and lists in quotes: '
                        'train_cfg.max_epochs=1 model.taps="[backbone.layer3,backbone.layer4]"')
    parser.add_argument('--launcher', choices=('none', *_RANK_VARIABLES), default='none', help='how processes are started (default: none)')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by launchers that pass it; not for hand use')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')


def run_tool(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse arguments and run; a wrong input ends in one sentence and exit code 1, an interruption in 130, SIGTERM in 143."""
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    logging.raiseExceptions = args.debug  # a log line that finds the disk full is no reason for a traceback
    try:
        main(args)
    except (ValueError, FileNotFoundError, NotADirectoryError, PermissionError, ImportError) as error:
        if args.debug:
            raise
        own = _own_error(error)
        if own is None and not isinstance(error, (FileNotFoundError, PermissionError)):
            raise  # a bug, here or below: its traceback is the useful part
        print(f'error: {" ".join(str(own or error).split())}', file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if args.debug or error.errno not in _DISK_ERRORS:
            raise
        where = f' {error.filename!r}' if error.filename else ''
        print(f'error: cannot write{where}: {error.strerror.lower()}; what was written before is intact: make room, or name another '
              'folder, and start again (a training with --resume)', file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print('interrupted; go on with --resume', file=sys.stderr)
        sys.exit(130)


def _own_error(error: Optional[BaseException]) -> Optional[BaseException]:
    """The error that this package raised, behind what MMEngine's registry wraps around it; None if it is another's."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        if frames and {_PACKAGE, _TOOLS} & set(Path(frames[-1].filename).resolve().parents):
            return error
        error = error.__cause__ or error.__context__
    return None


def load_run_config(args: argparse.Namespace) -> Config:
    """The config a tool is to run: read, overridden, its launcher and work folder set.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: The config asks for FSDP or DeepSpeed.
    """
    config = read_config(args.config)
    config.merge_from_dict(args.cfg_options)
    _refuse_sharding(config)
    config.launcher = args.launcher
    config.work_dir = args.work_dir or config.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    return config


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
    if config.launcher == 'none' or torch.cuda.is_available():
        return
    values = [os.environ.get(name) for name in _RANK_VARIABLES[config.launcher]]
    if None in values:
        raise ValueError(f'--launcher {config.launcher} needs {", ".join(_RANK_VARIABLES[config.launcher])} in the environment: '
                         'start the tool through tools/dist_train.sh, tools/slurm_train.sh or mpirun')
    os.environ.update(RANK=values[0], WORLD_SIZE=values[1], LOCAL_RANK=values[2])
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    torch.distributed.init_process_group('gloo')
    if config.get('model_wrapper_cfg') is None:
        config.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
                                        find_unused_parameters=config.get('find_unused_parameters', False))
    if any([_replace_sync_bn(config.model), config.pop('sync_bn', None)]):
        print_log('SyncBN needs a GPU: BN takes its place, each process normalising by its own share of the batch',
                  'current', logging.WARNING)


def make_resumable(config: Config) -> None:
    """Give a run the hooks and the loop that lose nothing to a kill, in the place of MMEngine's; hooks of other types stay."""
    hooks = config.setdefault('default_hooks', {})
    hooks.setdefault('random_state', dict(type='mmlckd.RandomStateHook'))
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    if checkpoint is not None and checkpoint.get('type') == 'CheckpointHook':
        checkpoint.type = 'mmlckd.SafeCheckpointHook'
        hooks.setdefault('preemption', dict(type='mmlckd.PreemptionHook'))
    if config.train_cfg.pop('by_epoch', False) or config.train_cfg.get('type') == 'EpochBasedTrainLoop':
        config.train_cfg.type = 'mmlckd.ResumableEpochLoop'


def _replace_sync_bn(node) -> bool:
    """Turn norm layers of type SyncBN into BN throughout a model config; whether there were any."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ()
    found = any([_replace_sync_bn(child) for child in children])
    if isinstance(node, dict) and node.get('type') == 'SyncBN':
        node['type'] = 'BN'
        return True
    return found
