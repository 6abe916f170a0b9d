"""The command-line tools on the demo's configs, as a user runs them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil

import pytest
import torch
from conftest import ALONE, LONDON, ROOT, TEACHER, on_mnist, run, save_untrained, stock_tool, total_and_parts
from mmengine.registry import init_default_scope

from mmlckd.checkpoints import read_checkpoint
from mmlckd.config import bare_model, read_config
from mmlckd.registry import MODELS


@pytest.fixture(scope='module')
def options(mnist, tmp_path_factory):
    """Overrides that run the guided demo on the session's data, its teacher untrained and its student with dropout and
    EMA.
    """
    checkpoint = save_untrained(TEACHER, tmp_path_factory.mktemp('teacher') / 'teacher.pth')
    return [
        '--cfg-options',
        *on_mnist(mnist),
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
    result = run('tools/train.py', LONDON, '--work-dir', folder, *options)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def test_a_resumed_run_ends_with_the_same_bits(trained, options, tmp_path):
    shutil.copy(trained / 'epoch_2.pth', tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    result = run('tools/train.py', LONDON, '--work-dir', tmp_path, '--resume', *options)
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


def test_the_logged_loss_is_the_total(trained):
    lines = [
        json.loads(line) for path in trained.glob('*/vis_data/scalars.json') for line in path.read_text().splitlines()
    ]
    steps = [line for line in lines if 'loss' in line]
    assert steps and all('student.loss' in step for step in steps)
    for step in steps:
        total, parts = total_and_parts(step)
        assert len(parts) == 4 and total == pytest.approx(sum(parts), rel=1e-5)
    (text,) = trained.glob('*/*.log')
    printed = re.findall(r'Epoch\(train\).*', text.read_text())
    assert printed
    for line in printed:
        total, parts = total_and_parts({name: float(value) for name, value in re.findall(r'([\w.]+): ([\d.]+)', line)})
        assert total == pytest.approx(sum(parts), abs=3e-4)  # five numbers of four digits behind the point


def test_the_student_alone_is_logged_as_mmengine_does_it(trained_alone):
    (file,) = trained_alone.parent.glob('*/vis_data/scalars.json')
    steps = [json.loads(line) for line in file.read_text().splitlines()]
    assert not any('student.loss' in step for step in steps)


def test_hooks_are_switched_off_by_none(trained, options, mnist, tmp_path):
    off = [f'default_hooks.{name}=None' for name in ('spectral_norm', 'finite_loss', 'random_state', 'run_check')]
    short = ['train_cfg.max_epochs=1', 'default_hooks.ema=None']
    result = run('tools/train.py', LONDON, '--work-dir', tmp_path / 'ours', *options, *short, *off)
    assert result.returncode == 0, result.stderr[-3000:]
    registered = (result.stdout + result.stderr).partition('Hooks will be executed')[2]
    assert 'CheckpointHook' in registered
    for name in ('SpectralNormHook', 'FiniteLossHook', 'RandomStateHook', 'RunCheckHook', 'EMAHook'):
        assert name not in registered
    short += [
        f'{name}_dataloader.persistent_workers=False' for name in ('train', 'val', 'test')
    ]  # they have no workers
    stock = run(stock_tool('mmpretrain', 'train'), LONDON, '--work-dir', tmp_path / 'theirs', *options, *short, off[0])
    assert stock.returncode == 0, stock.stderr[-3000:]
    for folder in (tmp_path / 'ours', tmp_path / 'theirs'):
        assert (folder / 'epoch_1.pth').is_file() and not (folder / 'lipschitz.json').exists()


# Three epochs tell no digits apart, so accuracies are 10 %; the average precision follows every score.
BY_SCORES = ['test_evaluator._delete_=True', 'test_evaluator.type=AveragePrecision']
METRIC = 'multi-label/mAP'


def precision(config, checkpoint, mnist, folder, *options):
    """The average precision that tools/test.py finds."""
    written = ['--work-dir', folder, '--out', folder / 'metrics.json']
    flags = [option for option in options if option.startswith('--')]
    overrides = [option for option in options if not option.startswith('--')]
    overrides = ['--cfg-options', *on_mnist(mnist), *BY_SCORES, *overrides]
    result = run('tools/test.py', config, checkpoint, *written, *flags, *overrides)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads((folder / 'metrics.json').read_text())[METRIC]


@pytest.mark.parametrize('tta', [[], ['--tta']])
def test_checkpoint_in_stock_mmpretrain_and_here(tta, trained, mnist, tmp_path):
    checkpoint = trained / 'epoch_3.pth'
    overrides = ['--cfg-options', *on_mnist(mnist), *BY_SCORES]
    theirs = run(stock_tool('mmpretrain', 'test'), ALONE, checkpoint, '--work-dir', tmp_path, *tta, *overrides)
    assert theirs.returncode == 0, theirs.stderr[-3000:]
    value = float(re.search(rf'{METRIC}: ([\d.]+)', theirs.stdout + theirs.stderr)[1])
    ours = precision(LONDON, checkpoint, mnist, tmp_path, *tta, 'model.teacher.checkpoint=nowhere.pth')
    assert ours == pytest.approx(value, abs=5e-5)  # theirs is printed with four digits


def test_tta_by_the_configs_own_fields(trained, mnist, tmp_path):
    # averaging an image with itself is the plain test; the default, which flips one of the two, is another
    same = "dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip', prob=0.0)] * 2, [dict(type='PackInputs')]])"
    (tmp_path / 'tta.py').write_text(
        f'_base_ = {str(ROOT / LONDON)!r}\n'
        "tta_model = dict(type='AverageClsScoreTTA')\n"
        f"tta_pipeline = [dict(type='LoadImageFromFile'), {same}]\n"
    )
    checkpoint = trained / 'epoch_3.pth'
    plain = precision(LONDON, checkpoint, mnist, tmp_path)
    own = precision(tmp_path / 'tta.py', checkpoint, mnist, tmp_path, '--tta')
    flipped = precision(LONDON, checkpoint, mnist, tmp_path, '--tta')
    assert own == pytest.approx(plain, abs=1e-4) and abs(flipped - plain) > 0.1


def test_export_is_the_bare_student(trained, tmp_path):
    result = run('tools/export_student.py', trained / 'epoch_3.pth', tmp_path / 'student.pth')
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.iterdir()
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
        *on_mnist(mnist),
        f'load_from={trained / "epoch_1.pth"}',
        'resume=True',
    )
    log = result.stdout + result.stderr
    assert (
        result.returncode == 0 and 'accuracy/top1' in log and 'Load checkpoint from' not in log
    )  # which is what MMEngine says of load_from


def test_missing_data_and_teacher_name_the_command_that_makes_them(tmp_path, mnist):
    """In a folder that is not the repository it is the package's own command, and its data and weights do not count."""
    result = run(ROOT / 'tools/train.py', ALONE, cwd=tmp_path)
    assert result.stderr.strip().splitlines()[-1] == (
        "error: train_dataloader.dataset.data_root is 'data/mnist5k', which does not exist: "
        'make it with `mmlckd prepare_digits`'
    )
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'mnist5k').symlink_to(mnist)
    result = run(ROOT / 'tools/train.py', LONDON, cwd=tmp_path)
    assert result.stderr.strip().splitlines()[-1] == (
        "error: model.teacher.checkpoint is 'work_dirs/mnist5k_wrn16-2/epoch_5.pth', which does not exist: "
        'make it with `mmlckd train configs/demo/mnist5k_wrn16-2.py`'
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
        LONDON,
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
