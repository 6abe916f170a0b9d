"""Evaluate a checkpoint with a config's test set; of a distillation config the student is tested, without its teacher.

python tools/test.py configs/demo/mnist5k_wrn16-2_to_wrn10-1.py work_dirs/mnist5k_wrn16-2_to_wrn10-1/epoch_12.pth
bash tools/dist_test.sh CONFIG CHECKPOINT 8
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mmengine.runner import Runner

from mmlckd.checkpoints import load_weights
from mmlckd.cli import (
    add_run_arguments,
    augment_testing,
    check_folder,
    check_prerequisites,
    init_processes,
    load_run_config,
    run_tool,
)
from mmlckd.config import bare_config
from mmlckd.unwrapped import unwrapped


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="path of a config, or the name of another package's (mmdet::...)")
    parser.add_argument('checkpoint', help='checkpoint to evaluate')
    add_run_arguments(parser)
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation, by tta_model and tta_pipeline of the config (default: each image flipped too)',
    )
    parser.add_argument('--out', type=Path, metavar='JSON', help='write the metrics to this file')
    return parser


def main(args):
    if args.out:
        check_folder('--out', args.out.parent)
    config = bare_config(load_run_config(args))
    config.update(load_from=None, resume=False)  # the given checkpoint is tested, not one that training started from
    check_prerequisites(config, ['test_dataloader'])
    if args.tta:
        augment_testing(config)
    init_processes(config)
    runner = Runner.from_cfg(config)
    load_weights(unwrapped(runner.model), args.checkpoint)
    metrics = runner.test()
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(metrics, indent=2, default=float) + '\n')


if __name__ == '__main__':
    run_tool(main, make_parser())
