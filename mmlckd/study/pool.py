"""Runs cells, several at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.context
import os
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Callable

import torch

from .cell import Cell, method_title

# What a cell would import otherwise, at its start or on the way. Names that do not exist are passed over.
_IMPORTED = [
    'torch',
    'torch._decomp.decompositions_for_jvp',
    'torchvision.transforms.functional',
    'scipy.stats',
    'matplotlib.pyplot',
    'mmengine.runner',
    'mmengine.visualization',
    'mmcv',
    'distutils.errors',
    'mmlckd.study',
    'mmlckd.backbones',
    'mmlckd.hooks',
]


def run_all(
    cells: Sequence[Cell], work_dir: Path, origin: dict, jobs: int, done: Callable[[Cell, dict], None]
) -> list[dict]:
    """Run the cells that have no record yet, and return all records in the cells' order.

    Every cell has a process of its own, forked from one that has the libraries imported. Its output goes to ``log.txt``
    in its folder.

    Args:
        cells: What to run.
        work_dir: The folder that holds the cells' folders.
        origin: Goes into every record.
        jobs: Processes at a time; each takes its share of the cores.
        done: Called with every cell and its record as soon as it is finished.

    Raises:
        RuntimeError: A cell failed. The others that were running are finished first. The message says where its log is.
    """
    folders = [cell.folder(work_dir) / f'seed{cell.seed}' for cell in cells]
    records: dict[int, dict] = {}
    for i, (cell, folder) in enumerate(zip(cells, folders)):
        if _is_finished(folder):
            records[i] = _record(cell, folder)
            done(cell, records[i])
    waiting = [i for i in range(len(cells)) if i not in records]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = _context({cells[i].config().default_scope for i in waiting}, threads)

    def run(i: int) -> int:
        process = context.Process(target=_in_process, args=(cells[i], folders[i], origin, threads))
        process.start()
        process.join()
        # Not the exit code: starting a process polls all others, too, and of two threads that poll one reads 255.
        if not _is_finished(folders[i]):
            raise RuntimeError(
                f'the training of {method_title(cells[i].method)!r} on {cells[i].data}, seed {cells[i].seed}, failed '
                f'(exit code {process.exitcode}): its log is {folders[i] / "log.txt"}'
            )
        return i

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run, i) for i in waiting]
        try:
            for future in as_completed(futures):
                i = future.result()
                records[i] = _record(cells[i], folders[i])
                done(cells[i], records[i])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return [records[i] for i in range(len(cells))]


def _context(scopes: set[str], threads: int) -> multiprocessing.context.ForkServerContext:
    """What makes processes that have the libraries imported. The server starts with the first process."""
    os.environ.setdefault('OMP_NUM_THREADS', str(threads))  # read where the server imports torch
    # MMEngine's import asks whether there is a GPU. Asked of CUDA, forks could not use it.
    os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')
    context = multiprocessing.get_context('forkserver')
    parts = ('models', 'datasets', 'engine', 'visualization')
    context.set_forkserver_preload([*_IMPORTED, *(f'{scope}.{part}' for scope in scopes for part in parts)])
    return context


def _is_finished(folder: Path) -> bool:
    return (folder / 'record.json').is_file()


def _record(cell: Cell, folder: Path) -> dict:
    """The record of a finished cell, under the data set's present title."""
    return {**json.loads((folder / 'record.json').read_text()), 'data': cell.data}


def _in_process(cell: Cell, folder: Path, origin: dict, threads: int) -> None:
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'log.txt', 'a') as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            cell.run(folder, origin)
        except BaseException:
            traceback.print_exc(file=log)
            raise SystemExit(1) from None
