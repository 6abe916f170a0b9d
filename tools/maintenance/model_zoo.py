"""Keep the results of finished runs of recipes as records, and bring them into the pages and the metafile.

    python tools/maintenance/model_zoo.py --add work_dirs/cifar100_wrn28-4_to_wrn16-2

A run counts if it followed its recipe: the same schedule, optimizer and losses, and all of the data. Afterwards this
does what tools/maintenance/page_tables.py does.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import page_tables
import torch
from mmengine.config import Config
from recipe_tables import ROOT, ZOO

from mmlckd.cli import leaf_datasets, run_tool
from mmlckd.config import is_distiller, read_config
from mmlckd.version import __version__

CONFIGS = ROOT / 'configs'
METRICS = {  # in the log: its name here, and how a logged value becomes it
    'accuracy/top1': ('top-1 error %', lambda value: 100 - value),
    'pascal_voc/mAP': ('mAP %', lambda value: 100 * value),
    'mIoU': ('mIoU %', lambda value: value),
}


def recipe_of(name: str) -> Path:
    """The config of that name.

    Raises:
        ValueError: There is none.
    """
    for folder in ('lckd', 'baselines', 'teachers'):
        path = CONFIGS / folder / f'{name}.py'
        if path.is_file():
            return path
    raise ValueError(
        f'{name!r} is no recipe: give a run of a config in configs/lckd, configs/baselines or configs/teachers'
    )


def record_of(folder: Path) -> dict:
    """The result of a finished run in a work folder.

    Raises:
        FileNotFoundError: It is no work folder.
        ValueError: The run is not finished, or did not follow its recipe.
    """
    configs = list(folder.glob('*.py'))
    if len(configs) != 1:
        raise FileNotFoundError(f'{folder} has {len(configs)} config files: give the work folder of one training')
    name, ran = configs[0].stem, Config.fromfile(configs[0])
    check_followed(folder, name, ran)
    logged, value = last_result(folder, ran.train_cfg.get('max_epochs') or ran.train_cfg.max_iters)
    metric, convert = METRICS[logged]
    return dict(
        recipe=name,
        metric=metric,
        value=round(convert(value), 4),
        seed=ran.get('randomness', {}).get('seed'),
        version=__version__,
        torch=torch.__version__,
    )


def check_followed(folder: Path, name: str, ran: Config) -> None:
    """See that a run used its recipe's schedule, optimizer and losses, and all of the data.

    Raises:
        ValueError: It did not.
    """
    recipe = read_config(recipe_of(name))
    for field in ('train_cfg', 'optim_wrapper', 'param_scheduler'):
        if ran.get(field) != recipe.get(field):
            raise ValueError(f'{folder} ran with another {field} than {name}: add runs of the recipe as it is')
    if is_distiller(ran.model) and ran.model.losses != recipe.model.losses:
        raise ValueError(f'{folder} ran with other losses than {name}: add runs of the recipe as it is')
    if any(dataset.get('indices') is not None for _, dataset in leaf_datasets(ran.train_dataloader.dataset, '')):
        raise ValueError(f'{folder} ran on a part of the data (dataset.indices): add runs of {name} on all of it')


def last_result(folder: Path, end: int) -> tuple[str, float]:
    """Name in the log and value of the last evaluation.

    Raises:
        ValueError: The last evaluation was not at ``end``.
    """
    measured = []
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        lines = map(json.loads, path.read_text().splitlines())
        measured += [line for line in lines if set(line) & set(METRICS)]
    last = measured[-1]['step'] if measured else 0
    if last != end:
        raise ValueError(f'{folder} was last evaluated at {last} of {end}: finish it with --resume')
    (logged,) = set(measured[-1]) & set(METRICS)
    return logged, measured[-1][logged]


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--add', nargs='+', required=True, metavar='WORK_DIR', type=Path, help='work folders of finished runs'
    )
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def main(args):
    records = [record_of(folder) for folder in args.add]  # see that all are sound before one is kept
    for record in records:
        path = ZOO / 'records' / f'{record["recipe"]}_seed{record["seed"]}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + '\n')
        print(f'{path.name}: {record["value"]} {record["metric"]}')
    page_tables.main()


if __name__ == '__main__':
    run_tool(main, make_parser())
