"""Jobs of several processes: what they learn, and how they end."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run, save_untrained

from mmlckd.checkpoint import read_checkpoint
from mmlckd.config import read_config

GUIDED = {task: f'configs/demo/{name}.py' for task, name in dict(
    classification='mnist5k_wrn16-2_to_wrn10-1', detection='digits_faster_rcnn_r18x32_to_r18x16',
    segmentation='digits_deeplabv3plus_r18x32_to_r18x16').items()}
ITERATIONS = 20


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp('teachers')

    def make(config):
        target = folder / f'{config.default_scope}.pth'
        return str(target if target.exists() else save_untrained(config.model.teacher.config, target))

    return make


def deterministic(task, folder, teacher, indices, **optimizer):
    """The guided demo without anything random, over those images of its training set in that order, two a batch, for one epoch."""
    config = read_config(GUIDED[task])
    config.model.teacher.checkpoint = teacher(config)
    config.param_scheduler = []
    dataset = config.train_dataloader.dataset
    if task == 'classification':
        dataset.data_root, dataset.pipeline = str(folder), [step for step in dataset.pipeline if step['type'] != 'RandomCrop']
    elif task == 'detection':
        dataset.data_root = f'{folder}/'
        for stage in ('rpn', 'rcnn'):
            config.model.student.train_cfg[stage].sampler.num = 100_000  # more than there are boxes: all are taken, none is drawn
    else:
        dataset = dataset.datasets[1]
        dataset.data_root = f'{folder}/VOC2012'
    dataset.indices = indices
    loader = config.train_dataloader
    loader.dataset, loader.batch_size, loader.sampler.shuffle = dataset, 2, False
    config.train_cfg.max_epochs = 1
    config.optim_wrapper.update(optimizer)
    config.update(val_cfg=None, val_dataloader=None, val_evaluator=None, test_cfg=None, test_dataloader=None, test_evaluator=None)
    return config


@pytest.mark.parametrize('task, nodes', [('classification', 2), ('detection', 1), ('segmentation', 1)])
def test_two_processes_learn_what_one_learns_from_the_averaged_gradients(task, nodes, mnist, devkit, teacher, tmp_path, monkeypatch):
    """Batch norms and loss averages are each process's own, so the one process takes the two half-batches in turn and averages their gradients."""
    folder = mnist if task == 'classification' else devkit
    images = [i % 8 for i in range(4 * ITERATIONS)]
    # DefaultSampler deals images out in turn: of 0, 1, 2, 3 the first process has 0 and 2, the second 1 and 3
    halves = [image for i in range(0, len(images), 4) for image in (images[i], images[i + 2], images[i + 1], images[i + 3])]
    deterministic(task, folder, teacher, images).dump(tmp_path / 'two.py')
    deterministic(task, folder, teacher, halves, accumulative_counts=2).dump(tmp_path / 'one.py')
    monkeypatch.setenv('PORT', str(29585 + 2 * len(task)))
    launch = ['bash', 'tools/dist_train.sh', str(tmp_path / 'two.py'), str(2 // nodes), '--work-dir', str(tmp_path / 'two')]
    jobs = [start(launch, NNODES=str(nodes), NODE_RANK=str(node)) for node in range(nodes)]
    one = run('tools/train.py', tmp_path / 'one.py', '--work-dir', tmp_path / 'one')
    assert one.returncode == 0, one.stderr[-3000:]
    for job in jobs:
        output, _ = job.communicate(timeout=300)
        assert job.returncode == 0, output[-3000:]
    assert not read_config(str(tmp_path / 'two.py')).get('find_unused_parameters', False)
    two, one = (read_checkpoint(str(tmp_path / name / 'epoch_1.pth')) for name in ('two', 'one'))
    assert (two['meta']['iter'], one['meta']['iter']) == (ITERATIONS, 2 * ITERATIONS)
    assert len(two['random_states']) == 2 and any(key.startswith('distiller.connectors') for key in two['state_dict'])
    assert all(state['momentum_buffer' if 'momentum_buffer' in state else 'exp_avg'].any() for state in one['optimizer']['state'].values())
    for key, value in one['state_dict'].items():
        if not key.endswith(('running_mean', 'running_var', 'num_batches_tracked')):  # of half the batches each, or of all
            print(task, key, float((two['state_dict'][key] - value).abs().max()), float(value.abs().max()))


def start(command, **environment):
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={
        **os.environ, 'PYTHONPATH': str(ROOT), 'PYTHON': sys.executable, 'PYTHONUNBUFFERED': '1', **environment})


def until(job, pattern):
    """Read a job's output up to a line of that pattern."""
    lines = []
    for line in job.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return
    raise AssertionError(f'no line {pattern!r} in\n{"".join(lines[-30:])}')


def process_of_rank(rank, job):
    """Process id of a rank, a child of the launcher."""
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            parent = int(stat.read_text().rpartition(')')[2].split()[1])
            if parent == job.pid and f'RANK={rank}'.encode() in (stat.parent / 'environ').read_bytes().split(b'\0'):
                return int(stat.parent.name)
        except OSError:  # ended meanwhile
            continue
    raise AssertionError(f'no process of rank {rank}')


def test_a_job_told_to_end_saves_and_one_with_a_dead_rank_ends(mnist, teacher, tmp_path, monkeypatch):
    monkeypatch.setenv('PORT', '29595')
    config = deterministic('classification', mnist, teacher, list(range(100)))
    config.train_cfg.max_epochs = 1000
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint.interval = 1000
    config.dump(tmp_path / 'long.py')
    command = ['bash', 'tools/dist_train.sh', tmp_path / 'long.py', 2, '--work-dir', tmp_path / 'run']
    job = start(command)
    until(job, r'Epoch\(train\)\s+\[2\]\[ 3/25\]')
    job.send_signal(signal.SIGTERM)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 143, output[-3000:]
    assert 'the job was ended by SIGTERM' in output and 'Traceback' not in output, output[-3000:]
    content = read_checkpoint(str(tmp_path / 'run' / 'preempted.pth'))
    assert content['meta']['epoch'] == 1 and content['place_in_epoch'] == (content['meta']['iter'] - 25, 25)
    assert len(content['random_states']) == len(content['epoch_random_states']) == 2

    job = start([*command, '--resume'])
    until(job, rf'Epoch\(train\)\s+\[2\]\[\s*{content["place_in_epoch"][0] + 1}/25\]')
    victim, began = process_of_rank(1, job), time.monotonic()
    os.kill(victim, signal.SIGKILL)
    output, _ = job.communicate(timeout=60)
    assert time.monotonic() - began < 60 and job.returncode == 128 + signal.SIGKILL
    assert f'error: rank 1 (process {victim}) was killed by SIGKILL, and the whole job with it' in output, output[-3000:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason='SyncBN runs on GPUs only')
def test_sync_bn_in_student_and_connectors(mnist, teacher, tmp_path, monkeypatch):
    monkeypatch.setenv('PORT', '29597')
    config = deterministic('classification', mnist, teacher, list(range(8)))
    config.sync_bn = 'torch'
    config.dump(tmp_path / 'sync.py')
    result = run('tools/dist_train.sh', tmp_path / 'sync.py', str(min(2, torch.cuda.device_count())), '--work-dir', tmp_path / 'run')
    assert result.returncode == 0, result.stderr[-3000:]
