"""Jobs of several processes: what they learn, and how they end."""

from __future__ import annotations

import json
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
from install_mmcv import is_upstream
from mmengine.runner import Runner

from mmlckd.checkpoints import read_checkpoint
from mmlckd.config import read_config

GUIDED = {
    task: f'configs/demo/{name}.py'
    for task, name in dict(
        classification='mnist5k_wrn16-2_to_wrn10-1_london',
        detection='digits_faster_rcnn_r18x32_to_r18x16',
        segmentation='digits_deeplabv3plus_r18x32_to_r18x16',
    ).items()
}
ITERATIONS = 20


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp('teachers')

    def make(config):
        target = folder / f'{config.default_scope}.pth'
        return str(target if target.exists() else save_untrained(config.model.teacher.config, target))

    return make


def deterministic(task, folder, teacher, indices):
    """The guided demo without anything random, over those images of its training set in that order, two a batch, for
    one epoch. There is no second view, which is mixed at random; the paper's term is there.
    """
    config = read_config(GUIDED[task])
    config.model.teacher.checkpoint = teacher(config)
    if task != 'classification':
        known = read_config(f'configs/study/recipes/{task}.py').model.losses
        config.model.view = None
        config.model.losses = {name: known[name] for name in ('ofd', 'lipschitz')}
    config.param_scheduler = []
    if task == 'segmentation' and is_upstream():  # class weights fail there where pixels are ignored
        config.model.student.decode_head.loss_decode.class_weight = None
    config.train_cfg.max_epochs = config.train_cfg.val_interval = 1
    root = str(folder) if task == 'classification' else f'{folder}/' if task == 'detection' else f'{folder}/VOC2012'
    config.val_dataloader.dataset.data_root = root
    loader = config.train_dataloader
    dataset = loader.dataset
    dataset.data_root, dataset.indices = root, indices
    dataset.pipeline = [step for step in dataset.pipeline if step['type'] != 'RandomCrop']
    loader.dataset, loader.batch_size, loader.sampler.shuffle = dataset, 2, False
    if task == 'detection':
        for stage in ('rpn', 'rcnn'):
            config.model.student.train_cfg[
                stage
            ].sampler.num = 100_000  # more than there are boxes: all are taken, none is drawn
    return config


@pytest.mark.parametrize('task, nodes', [('classification', 2), ('detection', 1), ('segmentation', 1)])
def test_two_processes_learn_what_one_learns_from_the_averaged_gradients(
    task, nodes, mnist, devkit, teacher, tmp_path, monkeypatch
):
    """To the bit: DDP's sum halved is the sum of the losses' halves' gradients, for a half is exact in binary.

    Batch norms and loss averages are each process's own, so the one process takes the two half-batches in turn and
    accumulates.
    """
    folder = mnist if task == 'classification' else devkit
    images = [i % 8 for i in range(4 * ITERATIONS)]
    # DefaultSampler deals images out in turn: of 0, 1, 2, 3 the first process has 0 and 2, the second 1 and 3.
    halves = [
        image for i in range(0, len(images), 4) for image in (images[i], images[i + 2], images[i + 1], images[i + 3])
    ]
    deterministic(task, folder, teacher, images).dump(tmp_path / 'two.py')
    monkeypatch.setenv('PORT', str(29585 + 2 * len(task)))
    launch = ['bash', 'tools/dist_train.sh', tmp_path / 'two.py', 2 // nodes, '--work-dir', tmp_path / 'two']
    jobs = [start(launch, NNODES=str(nodes), NODE_RANK=str(node)) for node in range(nodes)]
    deterministic(task, folder, teacher, halves).dump(
        tmp_path / 'one.py'
    )  # a dump sorts the losses, and their sum rounds by their order
    one = read_config(tmp_path / 'one.py')
    one.update(work_dir=str(tmp_path / 'one'), val_cfg=None, val_dataloader=None, val_evaluator=None)
    one.optim_wrapper.accumulative_counts = 2
    runner = Runner.from_cfg(one)
    runner.train()
    for job in jobs:
        output, _ = job.communicate(timeout=300)
        assert job.returncode == 0, output[-3000:]

    two = read_checkpoint(str(tmp_path / 'two' / 'epoch_1.pth'))
    assert (two['meta']['iter'], runner.iter) == (ITERATIONS, 2 * ITERATIONS) and len(two['random_states']) == 2
    assert set(two['state_dict']) == set(runner.model.state_dict())
    assert any('connectors' in name for name, _ in runner.model.named_parameters())
    for name, value in runner.model.named_parameters():
        assert torch.equal(two['state_dict'][name], value), name
    for one_state, two_state in zip(runner.optim_wrapper.optimizer.state.values(), two['optimizer']['state'].values()):
        assert all(torch.equal(value, two_state[key]) for key, value in one_state.items())
        assert one_state['exp_avg' if task == 'detection' else 'momentum_buffer'].any()  # there were gradients
    lines = [
        json.loads(line)
        for file in (tmp_path / 'two').glob('*/vis_data/scalars.json')
        for line in file.read_text().splitlines()
    ]
    assert any(key.endswith(('top1', 'mAP', 'mIoU')) for key in lines[-1])
    assert not any(key.startswith(('module.', 'student.', 'teacher.')) for key in two['state_dict'])


def test_two_processes_evaluate_what_one_does(mnist, tmp_path):
    alone = 'configs/demo/mnist5k_wrn10-1.py'
    checkpoint = save_untrained(alone, tmp_path / 'student.pth')
    for name, command in dict(
        one=['tools/test.py', alone, checkpoint], two=['tools/dist_test.sh', alone, checkpoint, 2]
    ).items():
        result = run(
            *command,
            '--work-dir',
            tmp_path / name,
            '--out',
            tmp_path / f'{name}.json',
            '--cfg-options',
            f'test_dataloader.dataset.data_root={mnist}',
            PORT='29599',
        )
        assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / 'one.json').read_text() == (tmp_path / 'two.json').read_text()


def start(command, **environment):
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHON': sys.executable, 'PYTHONUNBUFFERED': '1', **environment},
    )


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
    for _ in range(30):  # clusters and impatient users send more than one
        job.send_signal(signal.SIGTERM)
        time.sleep(0.02)
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
    assert f'error: rank 1 (process {victim}) was killed by SIGKILL, and the whole job with it' in output, output[
        -3000:
    ]


@pytest.mark.gpu
@pytest.mark.parametrize('processes', [1, 2])
def test_sync_bn_in_student_and_connectors_on_nccl(processes, mnist, teacher, tmp_path, monkeypatch):
    if torch.cuda.device_count() < processes:
        pytest.skip(f'SyncBN runs on GPUs only, and this needs {processes}')
    monkeypatch.setenv('PORT', str(29596 + processes))
    config = deterministic('classification', mnist, teacher, list(range(8)))
    config.sync_bn = 'torch'
    config.dump(tmp_path / 'sync.py')
    command = ['tools/dist_train.sh', tmp_path / 'sync.py', str(processes), '--work-dir', tmp_path / 'run']
    result = run(*command, CUDA_VISIBLE_DEVICES=os.environ.get('CUDA_VISIBLE_DEVICES', '0,1'))
    assert result.returncode == 0, result.stderr[-3000:]
