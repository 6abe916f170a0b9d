"""The processes of a distributed run."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import mmcv.cnn  # noqa: F401  registers the norm layers
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS

from mmlckd.config import tool_command
from mmlckd.registry import class_of

# What each launcher calls rank, world size and local rank.
RANK_VARIABLES = dict(
    pytorch=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
)


def init_processes(config: Config) -> None:
    """Join the other processes of a CPU job; with a GPU MMEngine does it.

    MMEngine picks a GPU for each process, which fails without one. Here the process group is gloo's, the DDP wrapper
    gets no device, and synchronised batch norms, which need a GPU, become ordinary ones.

    Raises:
        ValueError: The launcher's environment variables are not set.

    Source: this project.
    """
    if config.launcher == 'none':
        return
    names = RANK_VARIABLES[config.launcher]
    if any(name not in os.environ for name in names):
        raise ValueError(
            f'--launcher {config.launcher} needs {", ".join(names)} in the environment: '
            f'start the tool through `{tool_command("bash tools/dist_train.sh")}`, '
            f'`{tool_command("bash tools/slurm_train.sh")}` or mpirun'
        )
    if torch.cuda.is_available():
        return
    rank, world_size, local_rank = (os.environ[name] for name in names)
    os.environ.update(RANK=rank, WORLD_SIZE=world_size, LOCAL_RANK=local_rank)
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    torch.distributed.init_process_group('gloo')
    atexit.register(leave_group)
    if config.get('model_wrapper_cfg') is None:
        config.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=config.get('find_unused_parameters', False),
        )
    replaced, asked = _replace_sync_bn(config.model), config.pop('sync_bn', None)
    if replaced or asked:
        print_log(
            'SyncBN needs a GPU: BN takes its place, and each process normalises by its own share of the batch',
            'current',
            logging.WARNING,
        )


def leave_group() -> None:
    """Leave a gloo group before the interpreter ends.

    gloo's worker needs the GIL to free its last tensor; during the interpreter's shutdown that aborts the process.
    The worker ends with the group, and the group with the last graph and the last model that hold it.

    Source: this project.
    """
    time.sleep(0.2)  # the GIL is free meanwhile
    gc.collect()
    torch.distributed.destroy_process_group()


def _replace_sync_bn(node: Any) -> bool:
    """Turn norm layers that synchronise into BN throughout a model config; whether there were any."""
    children: Sequence = ()
    if isinstance(node, dict):
        children = tuple(node.values())
    elif isinstance(node, (list, tuple)):
        children = node
    found = [_replace_sync_bn(child) for child in children]
    if isinstance(node, dict) and _is_sync_bn(node.get('type')):
        node['type'] = 'BN'
        return True
    return any(found)


def _is_sync_bn(spec: str | type | None) -> bool:
    kind = class_of(spec, MODELS)
    return isinstance(kind, type) and issubclass(kind, torch.nn.SyncBatchNorm)
