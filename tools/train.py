"""Train the model of a config: a teacher, a student alone, or a student with its teacher.

    python tools/train.py configs/demo/mnist5k_wrn16-2_to_wrn10-1.py
    python tools/train.py CONFIG --resume                     # go on from the work folder's last checkpoint
    python tools/train.py CONFIG --cfg-options train_cfg.max_epochs=1 randomness.seed=3
    bash tools/dist_train.sh CONFIG 8                         # eight processes on this machine

SIGTERM, a cluster's notice, ends it with a checkpoint after the running iteration and with exit code 143; 130 is an interruption by
hand, 1 an error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from mmengine.runner import Runner

from mmlckd.checkpoints import newest_checkpoint
from mmlckd.cli import add_run_arguments, check_prerequisites, init_processes, load_run_config, run_tool
from mmlckd.config import bare_model
from mmlckd.resumability import make_resumable


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="path of a config, or the name of another package's (mmdet::...)")
    add_run_arguments(parser)
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision: float16 on GPUs, bfloat16 on the CPU'
    )
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate to the actual total batch size'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or from the last sound one in the work folder',
    )
    return parser


def main(args):
    config = load_run_config(args)
    if args.amp:
        if torch.cuda.is_available():
            config.optim_wrapper.type = 'AmpOptimWrapper'
            config.optim_wrapper.setdefault('loss_scale', 'dynamic')
        else:
            config.optim_wrapper.type = 'mmlckd.CpuAmpOptimWrapper'
            if config.get('default_scope') == 'mmdet':
                config.optim_wrapper.modules = [name for name in ('backbone', 'neck') if bare_model(config).get(name)]
    if args.auto_scale_lr:
        if not config.get('auto_scale_lr', {}).get('base_batch_size'):
            raise ValueError(
                '--auto-scale-lr needs the batch size that the learning rate was set for: add '
                'auto_scale_lr=dict(base_batch_size=...) to the config'
            )
        config.auto_scale_lr.enable = True
    last = newest_checkpoint(config.work_dir) if args.resume == 'auto' else args.resume
    if last:
        if '://' not in last and not Path(last).expanduser().is_file():
            raise FileNotFoundError(
                f'--resume is to go on from {last!r}, which does not exist: '
                'name another checkpoint, or leave --resume out'
            )
        config.update(resume=True, load_from=last)
    hooks = config.setdefault('default_hooks', {})
    hooks.setdefault('finite_loss', dict(type='mmlckd.FiniteLossHook'))
    hooks.setdefault('run_check', dict(type='mmlckd.RunCheckHook'))
    make_resumable(config)
    check_prerequisites(config)
    init_processes(config)
    Runner.from_cfg(config).train()


if __name__ == '__main__':
    run_tool(main, make_parser())
