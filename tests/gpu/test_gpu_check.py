"""The command that checks a GPU, tried on the CPU."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import ROOT, run
from gpu_check import failures, page


def test_the_report_on_the_cpu(tmp_path):
    options = ['--device', 'cpu', '--quick', '--parts', 'tests', '--out', tmp_path]
    result = run('tools/benchmarks/gpu_check.py', *options, PYTEST_ADDOPTS='-k "channels_last or stream"')
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    record = json.loads((tmp_path / 'gpu_check.json').read_text())
    outcomes = {row['name']: row['outcome'] for row in record['tests']}
    assert outcomes == dict(test_channels_last='passed', test_a_step_on_another_stream='skipped')
    text = (tmp_path / 'gpu_check.md').read_text()
    assert 'On the CPU, torch' in text and '| test_a_step_on_another_stream | skipped: needs a GPU |' in text


def test_a_page_of_all_parts():
    names = dict(loss='lipschitz_loss', steps='train_step', kills='crash_resume')
    records = {
        part: json.loads((ROOT / f'tools/benchmarks/records/{name}.json').read_text()) for part, name in names.items()
    }
    place = dict(gpus=['NVIDIA X', 'NVIDIA X'], torch='2.10', cuda='12.8', python='3.11')
    text = page(dict(machine=place, **{part: dict(record=record) for part, record in records.items()}))
    assert text.startswith('# GPU check\n\nOn NVIDIA X, NVIDIA X, torch 2.10, CUDA 12.8')
    assert f'| ours | {records["loss"]["results"]["ours"]["ms"]:.2f} |' in text
    steps = records['steps']['workloads']['cifar_a']['variants']
    assert (
        f'| cifar_a | {steps["ours"]["ratio"]:.2f} | {steps["ours"]["peak_mib"] / steps["floor"]["peak_mib"]:.2f} |'
        in text
    )
    assert '24 of 24 killed trainings ended with the bits' in text
    assert failures(
        dict(tests=[dict(name='a', outcome='failed')], loss=dict(exit_code=1), steps=dict(exit_code=0))
    ) == ['a', 'loss']


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
