"""Cells, several at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Callable

import torch

from .cell import Cell

_IMPORTED = [
    'torch',
    'scipy.stats',
    'matplotlib.pyplot',
    'mmengine.runner',
    'mmengine.visualization',
    'mmcv',
    'mmlckd.study',
]


def run_all(
    cells: Sequence[Cell], work_dir: Path, origin: dict, jobs: int, done: Callable[[Cell, dict], None]
) -> list[dict]:
    """Run what has no record yet, and return the records in the cells' order.

    Every cell has a process, a fork of one that has the libraries imported, and writes its output to ``log.txt`` in its folder.

    Args:
        cells: What to run.
        work_dir: Folder of the cells' folders.
        origin: Goes into every record.
        jobs: Processes at a time; each takes its share of the cores.
        done: Called with every cell and its record as it is finished.

    Raises:
        RuntimeError: A cell failed; the others that were running are finished first. The message says where its log is.
    """
    folders = [cell.folder(work_dir) / f'seed{cell.seed}' for cell in cells]
    records = [_record(cell, folder) for cell, folder in zip(cells, folders)]
    for cell, record in zip(cells, records):
        if record:
            done(cell, record)
    waiting = [i for i, record in enumerate(records) if record is None]
    if not waiting:
        return records
    threads = max(1, (os.cpu_count() or 1) // jobs)
    os.environ.setdefault('OMP_NUM_THREADS', str(threads))  # read where the server imports torch
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(
        [*_IMPORTED, *{f'{scope}.models' for scope in {cells[i].config().default_scope for i in waiting}}]
    )

    def run(i: int) -> int:
        process = context.Process(target=_in_process, args=(cells[i], folders[i], origin, threads))
        process.start()
        process.join()
        if process.exitcode or not (folders[i] / 'record.json').is_file():
            raise RuntimeError(
                f'the training of {cells[i].method or "the student alone"} on {cells[i].data}, seed {cells[i].seed}, failed '
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
    return records


def _record(cell: Cell, folder: Path) -> dict | None:
    """What is on the disk of a finished cell, under the data set's present title."""
    path = folder / 'record.json'
    return {**json.loads(path.read_text()), 'data': cell.data} if path.is_file() else None


def _in_process(cell: Cell, folder: Path, origin: dict, threads: int) -> None:
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'log.txt', 'a') as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            cell.run(folder, origin)
        except BaseException:
            traceback.print_exc(file=log)
            raise SystemExit(1) from None
