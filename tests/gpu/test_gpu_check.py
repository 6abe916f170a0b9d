"""The command that checks a GPU, tried on the CPU."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import run


def test_the_report_on_the_cpu(tmp_path):
    options = ['--device', 'cpu', '--quick', '--parts', 'tests', 'loss', '--out', tmp_path]
    result = run('tools/benchmarks/gpu_check.py', *options, PYTEST_ADDOPTS='-k "channels_last or stream"')
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    record = json.loads((tmp_path / 'gpu_check.json').read_text())
    outcomes = {row['name']: row['outcome'] for row in record['tests']}
    assert outcomes == dict(test_channels_last='passed', test_a_step_on_another_stream='skipped')
    assert record['machine']['gpus'] == [] and record['loss']['record']['results']['ours']['ms'] > 0
    text = (tmp_path / 'gpu_check.md').read_text()
    assert 'On the CPU, torch' in text and '| test_a_step_on_another_stream | skipped: needs a GPU |' in text


def test_what_fails_is_named_after_the_report_is_written(tmp_path):
    options = ['--device', 'cpu', '--quick', '--parts', 'kills', '--data', tmp_path / 'nothing', '--out', tmp_path]
    result = run('tools/benchmarks/gpu_check.py', *options)
    assert result.returncode == 1 and '1 checks failed: kills; their output is above' in result.stderr
    assert json.loads((tmp_path / 'gpu_check.json').read_text())['kills']['record'] is None


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is one')
def test_without_a_gpu_it_says_so(tmp_path):
    result = run('tools/benchmarks/gpu_check.py', '--out', tmp_path / 'out')
    assert result.returncode == 1 and not (tmp_path / 'out').exists()
    assert result.stderr.strip().startswith('error: torch sees no GPU here')
