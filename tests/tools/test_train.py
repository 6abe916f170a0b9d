"""The command-line tools on the demo's configs, as a user runs them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run
from mmengine.registry import init_default_scope

from mmlckd.checkpoints import read_checkpoint
from mmlckd.config import bare_model, read_config
from mmlckd.registry import MODELS

ALONE, TEACHER, GUIDED = (f'configs/demo/mnist5k_{name}.py' for name in ('wrn10-1', 'wrn16-2', 'wrn16-2_to_wrn10-1'))


def data_options(mnist):
    return [f'{name}_dataloader.dataset.data_root={mnist}' for name in ('train', 'val', 'test')]


@pytest.fixture(scope='module')
def options(mnist, tmp_path_factory):
    """Overrides that run the guided demo on the session's data, its teacher untrained and its student with dropout and EMA."""
    checkpoint = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    init_default_scope('mmpretrain')
    __import__('mmpretrain.models')
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(bare_model(read_config(TEACHER))).state_dict()), checkpoint)
    return [
        '--cfg-options',
        *data_options(mnist),
        f'model.teacher.checkpoint={checkpoint}',
        'model.student.backbone.dropout=0.2',
        'train_cfg.max_epochs=3',
        'train_cfg.val_interval=1',
        'default_hooks.checkpoint.interval=1',
        'default_hooks.checkpoint.max_keep_ckpts=-1',
        'default_hooks.ema.type=EMAHook',
    ]


@pytest.fixture(scope='module')
def trained(options, tmp_path_factory):
    """Work folder of three epochs of guided training."""
    folder = tmp_path_factory.mktemp('guided')
    result = run('tools/train.py', GUIDED, '--work-dir', folder, *options)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def test_a_resumed_run_ends_with_the_same_bits(trained, options, tmp_path):
    shutil.copy(trained / 'epoch_2.pth', tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    result = run('tools/train.py', GUIDED, '--work-dir', tmp_path, '--resume', *options)
    assert result.returncode == 0, result.stderr[-3000:]
    assert not re.search(r'Epoch\(train\)\s+\[[12]\]', result.stdout + result.stderr)  # only the third epoch is run
    one, other = (read_checkpoint(str(folder / 'epoch_3.pth')) for folder in (trained, tmp_path))
    for part in ('state_dict', 'ema_state_dict'):
        assert one[part].keys() == other[part].keys()
        for key, value in one[part].items():
            assert torch.equal(value, other[part][key]), f'{part}: {key}'


def test_log_names_and_figure(trained):
    lines = [
        json.loads(line) for path in trained.glob('*/vis_data/scalars.json') for line in path.read_text().splitlines()
    ]
    training = next(line for line in lines if 'loss' in line)
    assert {
        'distiller.loss_lipschitz',
        'distiller.loss_ofd',
        'distiller.loss_kd',
        'lipschitz/student_0',
        'lipschitz/teacher_1',
        'lipschitz/log_ratio_0',
    } <= set(training)
    assert not any('loss' in key for key in training if key.startswith('lipschitz'))
    history = json.loads((trained / 'lipschitz.json').read_text())
    assert [reading['iter'] for reading in history] == [
        1,
        5,
        10,
        12,
    ]  # 4 iterations an epoch; every 5th, the first and the last
    assert (trained / 'lipschitz.png').stat().st_size > 10_000


def test_checkpoint_in_stock_mmpretrain_and_here(trained, mnist, tmp_path):
    import mmpretrain

    stock = Path(mmpretrain.__file__).parent / '.mim' / 'tools' / 'test.py'
    checkpoint = trained / 'epoch_3.pth'
    theirs = run(
        stock,
        ALONE,
        checkpoint,
        '--work-dir',
        tmp_path,
        '--out',
        tmp_path / 'theirs.pkl',
        '--out-item',
        'pred',
        '--cfg-options',
        *data_options(mnist),
    )
    assert theirs.returncode == 0, theirs.stderr[-3000:]
    ours = run(
        'tools/test.py',
        GUIDED,
        checkpoint,
        '--work-dir',
        tmp_path,
        '--out',
        tmp_path / 'ours.json',
        '--cfg-options',
        *data_options(mnist),
        'model.teacher.checkpoint=nowhere.pth',
    )
    assert ours.returncode == 0, ours.stderr[-3000:]
    accuracy = json.loads((tmp_path / 'ours.json').read_text())['accuracy/top1']
    import pickle

    predictions = pickle.loads((tmp_path / 'theirs.pkl').read_bytes())
    right = sum(int(sample['pred_label']) == int(sample['gt_label']) for sample in predictions)
    assert accuracy == pytest.approx(100 * right / len(predictions))


def test_export_is_the_bare_student(trained, tmp_path):
    result = run('tools/export_student.py', trained / 'epoch_3.pth', tmp_path / 'student.pth')
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.iterdir()
    import hashlib

    assert path.name == f'student-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth'
    content = torch.load(path, weights_only=True)
    assert set(content) == {'state_dict', 'meta'}
    init_default_scope('mmpretrain')
    MODELS.build(bare_model(read_config(ALONE))).load_state_dict(content['state_dict'], strict=True)


def test_the_given_checkpoint_is_tested_and_not_that_of_the_config(trained, mnist, tmp_path):
    result = run(
        'tools/test.py',
        ALONE,
        trained / 'epoch_3.pth',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *data_options(mnist),
        f'load_from={trained / "epoch_1.pth"}',
        'resume=True',
    )
    log = result.stdout + result.stderr
    assert (
        result.returncode == 0 and 'accuracy/top1' in log and 'Load checkpoint from' not in log
    )  # which is what MMEngine says of load_from


def test_missing_data_and_teacher_name_the_command_that_makes_them(tmp_path, mnist):
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    result = run(ROOT / 'tools/train.py', ALONE, cwd=tmp_path)
    assert result.stderr.strip() == (
        "error: train_dataloader.dataset.data_root is 'data/mnist5k', which does not exist: "
        'make it with `python tools/prepare_digits.py`'
    )
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'mnist5k').symlink_to(mnist)
    # a file name that no work folder of this repository has either
    text = (tmp_path / GUIDED).read_text().replace('work_dirs/mnist5k_wrn16-2/', 'work_dirs/untrained/')
    (tmp_path / GUIDED).write_text(text)
    result = run(ROOT / 'tools/train.py', GUIDED, cwd=tmp_path)
    assert result.stderr.strip() == (
        "error: model.teacher.checkpoint is 'work_dirs/untrained/epoch_5.pth', which does not exist: "
        'make it with `python tools/train.py configs/demo/mnist5k_wrn16-2.py`'
    )
    assert not (tmp_path / 'work_dirs').exists()


@pytest.mark.parametrize(
    'tool',
    sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / 'tools').rglob('*.py') if '__main__' in path.read_text()
    ),
)
def test_help(tool):
    result = run(tool, '--help')
    assert result.returncode == 0 and 'usage:' in result.stdout


def test_tensorboard_gets_the_norms_and_the_figures(options, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(
        'tools/train.py',
        GUIDED,
        '--work-dir',
        tmp_path,
        *options,
        'train_cfg.max_epochs=1',
        'default_hooks.spectral_norm.interval=1',
        'default_hooks.spectral_norm.layers=backbone.layer1',
        'visualizer.vis_backends.0.type=TensorboardVisBackend',
    )
    assert result.returncode == 0, result.stderr[-3000:]
    (event,) = tmp_path.glob('*/vis_data/events*')
    events = EventAccumulator(str(event)).Reload()
    assert {
        'lipschitz/student_0',
        'lipschitz/teacher_1',
        'lipschitz/log_ratio_0',
        'lipschitz/layer/backbone.layer1.0.conv1',
    } <= set(events.Tags()['scalars'])
    assert set(events.Tags()['images']) == {'lipschitz', 'lipschitz_layers'}


@pytest.mark.parametrize(
    'fields, named',
    [
        (dict(strategy=dict(type='DeepSpeedStrategy')), 'strategy'),
        (dict(runner_type='FlexibleRunner'), 'runner_type'),
        (dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')), 'model_wrapper_cfg.type'),
    ],
)
def test_sharding_is_refused(fields, named, tmp_path):
    from argparse import Namespace

    from mmlckd.cli import load_run_config

    args = Namespace(config=ALONE, cfg_options=fields, launcher='none', work_dir=str(tmp_path))
    with pytest.raises(
        ValueError, match=f'{named} is .*FSDP and DeepSpeed are not supported: they shard what is trained'
    ):
        load_run_config(args)
