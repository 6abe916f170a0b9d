"""``mmlckd.prepare``: a Runner that the user makes has the guards of tools/train.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from conftest import ALONE, GUIDED, ROOT
from mmengine.runner import Runner
from mmengine.runner import checkpoint as mmengine_checkpoint

import mmlckd
from mmlckd.config import read_config
from mmlckd.hooks import FiniteLossHook
from mmlckd.resumability import RunCheckHook, SafeCheckpointHook


@pytest.fixture
def folder(mnist, tmp_path, monkeypatch):
    """The working folder of a user who has the demo's data."""
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'mnist5k').symlink_to(mnist)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def alone(epochs=1):
    config = read_config(ALONE)
    config.train_cfg.update(max_epochs=epochs, val_interval=1)
    config.default_hooks.checkpoint.interval = 1
    config.visualizer = None
    return config


def test_a_runner_has_the_guards(folder):
    runner = Runner.from_cfg(mmlckd.prepare(alone()))
    hooks = {type(hook) for hook in runner.hooks}
    assert {FiniteLossHook, RunCheckHook, SafeCheckpointHook} <= hooks
    assert Path(runner.work_dir).resolve() == folder / 'work_dirs' / Path(ALONE).stem
    assert type(runner.train_loop).__name__ == 'ResumableEpochLoop'


def test_a_config_without_hooks_gets_them(folder):
    config = alone()
    config.pop('default_hooks')
    hooks = {type(hook) for hook in Runner.from_cfg(mmlckd.prepare(config)).hooks}
    assert {FiniteLossHook, RunCheckHook, SafeCheckpointHook} <= hooks


def test_a_hook_that_is_none_stays_off(folder):
    config = alone()
    config.default_hooks.finite_loss = None
    config.default_hooks.random_state = None
    hooks = mmlckd.prepare(config).default_hooks
    assert hooks.finite_loss is None and hooks.random_state is None and hooks.run_check is not None


@pytest.mark.parametrize('randomness, workspace', [({}, None), (dict(seed=1), None), (dict(deterministic=True), '8')])
def test_cublas_gets_what_determinism_needs(folder, monkeypatch, randomness, workspace):
    monkeypatch.setitem(os.environ, 'CUBLAS_WORKSPACE_CONFIG', 'so that it is restored')
    del os.environ['CUBLAS_WORKSPACE_CONFIG']
    config = alone()
    config.randomness = randomness
    mmlckd.prepare(config)
    assert os.environ.get('CUBLAS_WORKSPACE_CONFIG', '')[-1:] == (workspace or '')


def test_a_second_call_changes_nothing(folder):
    config = mmlckd.prepare(alone())
    text = config.pretty_text
    assert mmlckd.prepare(config) is config and config.pretty_text == text


class Shell:
    """Its unpickling would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, 'ran')


@pytest.mark.parametrize('field', ['load_from', 'resume'])
def test_a_checkpoint_runs_no_code(folder, field):
    torch.save(dict(state_dict={}, meta=Shell(folder / 'ran.txt')), 'hostile.pth')
    config = alone()
    config.update(load_from='hostile.pth', resume=field == 'resume')
    runner = Runner.from_cfg(mmlckd.prepare(config))
    with pytest.raises(ValueError, match='hostile.pth'):
        runner.train()
    assert not (folder / 'ran.txt').exists()


def test_resume_takes_the_last_sound_checkpoint(folder):
    Runner.from_cfg(mmlckd.prepare(alone(1))).train()
    work_dir = folder / 'work_dirs' / Path(ALONE).stem
    (work_dir / 'epoch_2.pth').write_bytes((work_dir / 'epoch_1.pth').read_bytes()[:1000])  # a full disk's work
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_2.pth'))
    config = alone(2)
    config.resume = True
    mmlckd.prepare(config)
    assert config.resume and Path(config.load_from).name == 'epoch_1.pth'
    runner = Runner.from_cfg(config)
    runner.train()
    assert runner.epoch == 2 and runner.iter == 2 * len(runner.train_dataloader)


def test_resume_in_an_empty_work_folder_is_a_start(folder):
    config = alone()
    config.resume = True
    mmlckd.prepare(config)
    assert not config.resume and config.load_from is None


@pytest.mark.parametrize(
    'change, error, sentence',
    [
        (dict(train_dataloader=dict(dataset=dict(data_root='nowhere'))), FileNotFoundError, "is 'nowhere', which does"),
        (dict(load_from='nowhere.pth'), FileNotFoundError, "load_from is 'nowhere.pth', which does not exist"),
        (dict(work_dir='file.txt/run'), NotADirectoryError, "work_dir is 'file.txt/run', and .* is a file"),
        (dict(runner_type='FlexibleRunner'), ValueError, 'FSDP and DeepSpeed are not supported'),
        (dict(train_cfg=dict(max_epochs='many')), ValueError, 'max_epochs'),
    ],
)
def test_what_a_run_would_stumble_over_is_said_before_it(folder, change, error, sentence):
    (folder / 'file.txt').write_text('')
    config = alone()
    config.merge_from_dict(change)
    with pytest.raises(error, match=sentence):
        mmlckd.prepare(config)
    assert not (folder / 'work_dirs').exists()


def test_a_part_of_a_config_is_refused(folder):
    with pytest.raises(ValueError, match='has no model'):
        mmlckd.prepare(read_config(ROOT / 'configs/_base_/datasets/mnist5k.py'))


def test_paths_of_a_shipped_recipe(folder):
    """The teacher's config comes with the package; its weights are the user's, and the remedy works in this folder."""
    config = read_config(GUIDED)
    with pytest.raises(FileNotFoundError) as caught:
        mmlckd.prepare(config)
    assert "model.teacher.checkpoint is 'work_dirs/mnist5k_wrn16-2/epoch_5.pth', which does not exist" in str(
        caught.value
    )
    assert '`mmlckd train configs/demo/mnist5k_wrn16-2.py`' in str(caught.value)
    assert 'site-packages' not in str(caught.value) and str(ROOT) not in str(caught.value)


def test_the_loader_is_the_packages(folder):
    mmlckd.prepare(alone())
    assert mmengine_checkpoint.CheckpointLoader._schemes[''].__module__.startswith('mmlckd.')
