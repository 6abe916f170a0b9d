"""Two processes killed within an iteration, while a checkpoint is written, within an evaluation, and by SIGTERM; each
time resumed to the bit.
"""

from __future__ import annotations

import json

from conftest import run


def test_killed_and_resumed_trainings_end_with_the_bits_of_an_uninterrupted_one(mnist, tmp_path):
    result = run(
        'tools/benchmarks/crash_resume.py',
        '--kills',
        3,
        '--terminations',
        1,
        '--epochs',
        2,
        '--ranks',
        2,
        '--workers',
        1,
        '--data',
        mnist,
        '--work-dir',
        tmp_path / 'runs',
        '--out',
        tmp_path / 'record.json',
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    rows = json.loads((tmp_path / 'record.json').read_text())['rows']
    assert (
        len(rows) == 4
        and not any(row['differs'] for row in rows)
        and rows[-1]['signal'] == 'SIGTERM'
        and rows[-1]['repeated'] == 0
    )
