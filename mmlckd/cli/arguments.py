"""Command-line arguments that the tools share."""

from __future__ import annotations

import argparse

from mmengine.config import DictAction

from .processes import RANK_VARIABLES


class Overrides(DictAction):
    """MMEngine's KEY=VALUE arguments, whose mistakes argparse reports."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError) as error:
            raise argparse.ArgumentError(
                self, f'{values} are to be KEY=VALUE, without spaces and with balanced brackets'
            ) from error


def add_override_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every tool that reads a config and checkpoints."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Overrides,
        metavar='KEY=VALUE',
        default={},
        help='override config fields, nested ones with dots and lists in quotes: '
        'train_cfg.max_epochs=1 model.taps="[backbone.layer3,backbone.layer4]"',
    )
    add_trust_argument(parser)


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--trust-checkpoints',
        action='store_true',
        help='unpickle whatever the checkpoints hold, which runs any code in them: only for files you made yourself',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every tool that runs a config."""
    parser.add_argument(
        '--work-dir', help='folder for logs, checkpoints and figures (default: work_dirs/<config name>)'
    )
    add_override_arguments(parser)
    parser.add_argument(
        '--launcher',
        choices=('none', *RANK_VARIABLES),
        default='none',
        help='how processes are started (default: none)',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by launchers that pass it; not for hand use'
    )
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
