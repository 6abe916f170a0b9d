"""Train the model of a config: a teacher, a student alone, or a student with its teacher.

    python tools/train.py configs/demo/mnist5k_wrn16-2_to_wrn10-1.py
    python tools/train.py CONFIG --resume                     # go on from the work folder's last checkpoint
    python tools/train.py CONFIG --cfg-options train_cfg.max_epochs=1 randomness.seed=3
    bash tools/dist_train.sh CONFIG 8                         # eight processes on this machine

SIGTERM, which clusters send before they end a job, makes it write a checkpoint after the running iteration and end with
exit code 143. Exit code 130 is an interruption by hand, and 1 an error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner

from mmlckd.checkpoints import newest_checkpoint
from mmlckd.cli import add_run_arguments, init_processes, load_run_config, run_tool
from mmlckd.config import bare_model, host_of
from mmlckd.optim import CpuAmpOptimWrapper
from mmlckd.preparing import prepare
from mmlckd.registry import OPTIM_WRAPPERS, class_of
from mmlckd.validation import in_words


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="path of a config, or the name of another package's (mmdet::...)")
    add_run_arguments(parser)
    add_training_arguments(parser)
    return parser


def add_training_arguments(parser):
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


def main(args):
    config = load_run_config(args)
    if args.amp:
        use_mixed_precision(config)
    if args.auto_scale_lr:
        scale_learning_rate(config)
    go_on_from(config, args.resume)
    prepare(config)
    init_processes(config)
    Runner.from_cfg(config).train()


def use_mixed_precision(config):
    """Let the optimizer's wrapper run the network under autocast."""
    wrapper = config.optim_wrapper
    kind = class_of(wrapper.get('type', 'OptimWrapper'), OPTIM_WRAPPERS)
    if kind not in (OptimWrapper, AmpOptimWrapper, CpuAmpOptimWrapper):
        raise ValueError(
            f"--amp takes the place of MMEngine's OptimWrapper, and optim_wrapper.type is {in_words(wrapper.type)}: "
            'leave one of them out'
        )
    if torch.cuda.is_available():
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
        return
    wrapper.type = 'mmlckd.CpuAmpOptimWrapper'
    if host_of(config) == 'mmdet':
        wrapper.modules = [name for name in ('backbone', 'neck') if bare_model(config).get(name)]


def scale_learning_rate(config):
    """Scale it by the total batch size, over the one that the config was made for."""
    if not (config.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise ValueError(
            '--auto-scale-lr needs the batch size that the learning rate was set for: '
            'add auto_scale_lr=dict(base_batch_size=...) to the config'
        )
    config.auto_scale_lr.enable = True


def go_on_from(config, resume):
    """Set the checkpoint to go on from: the one that is named, or the last sound one of the work folder, if any."""
    last = newest_checkpoint(config.work_dir) if resume == 'auto' else resume
    if not last:
        return
    if '://' not in last and not Path(last).expanduser().is_file():
        raise FileNotFoundError(
            f'--resume is to go on from {last!r}, which does not exist: name another checkpoint, or leave --resume out'
        )
    config.update(resume=True, load_from=last)


if __name__ == '__main__':
    run_tool(main, make_parser())
