"""None switches a default hook off, whoever wrote the hook."""

from __future__ import annotations

import argparse

import pytest
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from small_network import Model

DEFAULTS = dict(
    spectral_norm=dict(type='mmlckd.SpectralNormHook'),
    finite_loss=dict(type='mmlckd.FiniteLossHook'),
    random_state=dict(type='mmlckd.RandomStateHook'),
    checkpoint=dict(type='mmlckd.SafeCheckpointHook'),
)
KINDS = dict(
    spectral_norm='SpectralNormHook',
    finite_loss='FiniteLossHook',
    random_state='RandomStateHook',
    checkpoint='SafeCheckpointHook',
)


@pytest.mark.parametrize('off', [['spectral_norm'], ['finite_loss', 'random_state'], ['checkpoint', 'spectral_norm']])
def test_from_the_command_line_of_mmengines_own_tools(off, tmp_path):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    options = parser.parse_args(['--cfg-options', *(f'default_hooks.{name}=None' for name in off)]).cfg_options
    config = Config(dict(default_hooks=DEFAULTS, custom_imports=dict(imports=['mmlckd'])))
    config.merge_from_dict(options)
    run = Runner(Model(), str(tmp_path), default_hooks=config.default_hooks, experiment_name=tmp_path.name)
    hooks = {type(hook).__name__ for hook in run.hooks}
    assert hooks & {*KINDS.values()} == {kind for name, kind in KINDS.items() if name not in off}
    assert {'RuntimeInfoHook', 'IterTimerHook', 'LoggerHook'} <= hooks
