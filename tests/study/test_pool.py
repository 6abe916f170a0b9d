"""Cells that run in processes of their own."""

from __future__ import annotations

import json

import pytest

from mmlckd.study import pool


class Cell:
    """A cell whose process is not started."""

    data, method, seed = 'digits', ('kd',), 3

    def folder(self, work_dir):
        return work_dir / 'cell'

    def config(self):
        return type('Config', (), dict(default_scope='mmpretrain'))


class Context:
    """What makes processes: of this one, which ends before it is polled a second time, only 255 can be read."""

    finishes = True

    def Process(self, target, args):
        self.folder = args[1]
        return self

    def start(self):
        self.folder.mkdir(parents=True)
        if self.finishes:
            (self.folder / 'record.json').write_text(json.dumps(dict(test=90.0)))

    def join(self):
        self.exitcode = 255


def run(folder, monkeypatch):
    monkeypatch.setattr(pool, '_context', lambda scopes, threads: Context())
    return pool.run_all([Cell()], folder, {}, 1, lambda cell, record: None)


def test_a_cell_with_a_record_is_finished_whatever_exit_code_was_read(tmp_path, monkeypatch):
    assert run(tmp_path, monkeypatch) == [dict(test=90.0, data='digits')]


def test_a_cell_without_a_record_has_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(Context, 'finishes', False)
    with pytest.raises(RuntimeError, match=r"'KD' on digits, seed 3, failed \(exit code 255\): its log is .*log\.txt"):
        run(tmp_path, monkeypatch)
