"""The processes of a distributed run."""

from __future__ import annotations

import atexit
import logging
import os
import time

import torch
from mmengine.config import Config
from mmengine.logging import print_log

# What each launcher calls rank, world size and local rank.
RANK_VARIABLES = dict(
    pytorch=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
)


def init_processes(config: Config) -> None:
    """Join the other processes of a CPU job; with a GPU MMEngine does it.

    MMEngine's own start-up picks a GPU for each process, which fails without one. Here the group is gloo's, the DDP
    wrapper gets no device, and synchronised batch norms, which are GPU only, become ordinary ones.
    """
    if config.launcher == 'none':
        return
    values = [os.environ.get(name) for name in RANK_VARIABLES[config.launcher]]
    if None in values:
        raise ValueError(
            f'--launcher {config.launcher} needs {", ".join(RANK_VARIABLES[config.launcher])} in the environment: '
            'start the tool through tools/dist_train.sh, tools/slurm_train.sh or mpirun'
        )
    if torch.cuda.is_available():
        return
    os.environ.update(RANK=values[0], WORLD_SIZE=values[1], LOCAL_RANK=values[2])
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    torch.distributed.init_process_group('gloo')
    atexit.register(_leave_group)
    if config.get('model_wrapper_cfg') is None:
        config.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=config.get('find_unused_parameters', False),
        )
    if any([_replace_sync_bn(config.model), config.pop('sync_bn', None)]):
        print_log(
            'SyncBN needs a GPU: BN takes its place, each process normalising by its own share of the batch',
            'current',
            logging.WARNING,
        )


def _leave_group() -> None:
    """Before the interpreter ends: a thread of gloo's that is about to let go of its last tensor waits for the interpreter's lock, is
    refused it once that is ending, and then aborts the process."""
    time.sleep(0.2)  # in which the lock is free
    torch.distributed.destroy_process_group()


def _replace_sync_bn(node) -> bool:
    """Turn norm layers of type SyncBN into BN throughout a model config; whether there were any."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ()
    found = any(_replace_sync_bn(child) for child in children)
    if isinstance(node, dict) and node.get('type') == 'SyncBN':
        node['type'] = 'BN'
        return True
    return found
