"""Results of the recipes: records of finished runs, the tables of configs/lckd/README.md and the metafile, all made from them.

    python tools/maintenance/model_zoo.py                                              # tables and metafile anew
    python tools/maintenance/model_zoo.py --add work_dirs/cifar100_wrn28-4_to_wrn16-2  # with the result of a finished run

A run counts if it followed its recipe: the same schedule, optimizer and losses, and all of the data.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
from pathlib import Path

import torch
import yaml
from mmengine.config import Config
from mmengine.registry import init_default_scope
from page_tables import table, with_table

from mmlckd.cli import leaf_datasets, run_tool
from mmlckd.config import bare_model, is_distiller, read_config
from mmlckd.registry import MODELS
from mmlckd.version import __version__

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
ZOO = CONFIGS / 'lckd'
METRICS = {  # in the log: its name here, and how a logged value becomes it
    'accuracy/top1': ('top-1 error %', lambda value: 100 - value),
    'pascal_voc/mAP': ('mAP %', lambda value: 100 * value),
    'mIoU': ('mIoU %', lambda value: value),
}
DATA = dict(cifar100='CIFAR-100', imagenet='ImageNet-1k', voc='PASCAL VOC')
TASKS = dict(mmpretrain='Image Classification', mmdet='Object Detection', mmseg='Semantic Segmentation')
LABELS = dict(teacher='Teacher', alone='Student Alone', ofd='OFD', london='LONDON')
NOT_RUN = 'not run'


def recipe_of(name):
    """The config of that name, wherever it is."""
    found = [
        path
        for folder in ('lckd', 'baselines', 'teachers')
        for path in [CONFIGS / folder / f'{name}.py']
        if path.is_file()
    ]
    if not found:
        raise ValueError(
            f'{name!r} is no recipe of configs/lckd, configs/baselines or configs/teachers, by whose names runs are known'
        )
    return found[0]


def record_of(folder):
    """The result of a finished run in a work folder.

    Raises:
        FileNotFoundError, ValueError: It is no work folder, is not finished, or did not follow its recipe.
    """
    configs = list(folder.glob('*.py'))
    if len(configs) != 1:
        raise FileNotFoundError(f'{folder} has {len(configs)} config files: give the work folder of one training')
    ran, recipe = Config.fromfile(configs[0]), read_config(recipe_of(configs[0].stem))
    for field in ('train_cfg', 'optim_wrapper', 'param_scheduler'):
        if ran.get(field) != recipe.get(field):
            raise ValueError(
                f"{folder} ran with another {field} than {configs[0].stem}: its result is not this recipe's"
            )
    if is_distiller(ran.model) and ran.model.losses != recipe.model.losses:
        raise ValueError(f"{folder} ran with other losses than {configs[0].stem}: its result is not this recipe's")
    if any(dataset.get('indices') is not None for _, dataset in leaf_datasets(ran.train_dataloader.dataset, '')):
        raise ValueError(f'{folder} ran on a part of the data: its result is not a result of {configs[0].stem}')
    lines = [
        json.loads(line)
        for path in sorted(folder.glob('*/vis_data/scalars.json'))
        for line in path.read_text().splitlines()
    ]
    measured = [line for line in lines if set(line) & set(METRICS)]
    end = ran.train_cfg.get('max_epochs') or ran.train_cfg.max_iters
    if not measured or measured[-1]['step'] != end:
        raise ValueError(
            f'{folder} was last evaluated at {measured[-1]["step"] if measured else 0} of {end}: finish it with --resume'
        )
    (logged,) = set(measured[-1]) & set(METRICS)
    metric, convert = METRICS[logged]
    return dict(
        recipe=configs[0].stem,
        metric=metric,
        value=round(convert(measured[-1][logged]), 4),
        seed=ran.get('randomness', {}).get('seed'),
        version=__version__,
        torch=torch.__version__,
    )


def result_of(name):
    """Mean over the recorded runs of a recipe, with their number; or that it was not run."""
    values = [json.loads(path.read_text())['value'] for path in sorted((ZOO / 'records').glob(f'{name}_seed*.json'))]
    if not values:
        return NOT_RUN
    spread = f' ± {statistics.stdev(values):.2f} ({len(values)} seeds)' if len(values) > 1 else ''
    return f'{statistics.mean(values):.2f}{spread}'


@functools.cache
def parameters(path):
    """Number of parameters of a config's plain network."""
    config = read_config(path)
    init_default_scope(config.default_scope)
    __import__(f'{config.default_scope}.models')
    return sum(parameter.numel() for parameter in MODELS.build(bare_model(config)).parameters())


@functools.cache
def recipes():
    """Name, config and parameters of student and teacher of every recipe."""
    configs = [(path, read_config(path)) for path in sorted(ZOO.glob('*.py'))]
    return [(path.stem, config, parameters(path), parameters(config.model.teacher.config)) for path, config in configs]


def published():
    return yaml.safe_load((ZOO / 'published.yml').read_text())


def classification_table():
    rows, known = [], published()
    for name, config, student, teacher in recipes():
        if config.default_scope != 'mmpretrain':
            continue
        pair = name.removesuffix('_scale_free')
        row = known[pair] if pair == name else {}
        alone = f'{pair.split("_")[0]}_{pair.split("_to_")[1]}'
        cells = [
            f'{row.get(key) or "-"} / {result_of(ours)}'
            for key, ours in (('alone', alone), ('ofd', f'{pair}_ofd'), ('london', name))
        ]
        rows.append(
            [
                f'[{name}]({name}.py)',
                row.get('setting', ''),
                f'{teacher / 1e6:.2f}',
                f'{student / 1e6:.2f}',
                *cells,
                row.get('source', '-'),
            ]
        )
    return table(
        ['recipe', 'setting', 'teacher, M', 'student, M', 'alone', 'OFD', 'LONDON / this recipe', 'published in'], rows
    )


def voc_table():
    rows = []
    for name, config, student, teacher in recipes():
        if config.default_scope == 'mmpretrain':
            continue
        weights = 'zoo' if '://' in config.model.teacher.checkpoint else f'`{config.model.teacher.config}`'
        rows.append(
            [
                f'[{name}]({name}.py)',
                f'{teacher / 1e6:.2f}',
                weights,
                f'{student / 1e6:.2f}',
                ', '.join(config.model.losses),
                result_of(name),
            ]
        )
    return table(['recipe', 'teacher, M', 'its weights', 'student, M', 'distillation losses', 'result'], rows)


def metafile():
    """OpenMMLab's description of the recipes, as text."""
    known, models = published(), []
    for name, config, student, teacher in recipes():
        data = DATA[name.split('_')[0]]
        row = known.get(name)
        result = result_of(name)
        results = (
            None
            if result == NOT_RUN
            else [{'Task': TASKS[config.default_scope], 'Dataset': data, 'Metrics': {'Result': result}}]
        )
        metadata = {
            'Training Data': data,
            'Parameters': student,
            'Teacher': config.model.teacher.config,
            'Teacher Parameters': teacher,
        }
        for title, errors in (('Published Top 1 Error', row), ('Published Top 5 Error', row and row.get('top5'))):
            if errors:
                metadata[title] = {label: errors.get(key) for key, label in LABELS.items()}
        if row:
            metadata['Published In'] = row['source']
        models.append(
            {
                'Name': name,
                'In Collection': 'LONDON',
                'Metadata': metadata,
                'Results': results,
                'Config': f'configs/lckd/{name}.py',
                'Weights': None,
            }
        )
    collection = {
        'Name': 'LONDON',
        'Metadata': {'Training Techniques': ['Knowledge Distillation', 'Lipschitz Continuity']},
        'Paper': {
            'Title': 'Lipschitz Continuity Guided Knowledge Distillation',
            'URL': 'https://arxiv.org/abs/2108.12905',
        },
        'README': 'configs/lckd/README.md',
    }
    note = '# Written by tools/maintenance/model_zoo.py. Results is null where a recipe was not run here.\n'
    return note + yaml.safe_dump(dict(Collections=[collection], Models=models), sort_keys=False, width=140)


PAGES = dict(classification=classification_table, recipes=voc_table)


def written():
    """The files that this tool writes, as text."""
    text = (ZOO / 'README.md').read_text()
    for name, make in PAGES.items():
        text = with_table(text, name, make())
    return {'README.md': text, 'metafile.yml': metafile()}


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--add', nargs='+', default=[], metavar='WORK_DIR', help='work folders of finished runs')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def main(args):
    records = [record_of(Path(folder)) for folder in args.add]  # all of them are sound before one is kept
    for record in records:
        path = ZOO / 'records' / f'{record["recipe"]}_seed{record["seed"]}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + '\n')
        print(f'{path.relative_to(ROOT)}: {record["value"]} {record["metric"]}')
    for name, text in written().items():
        (ZOO / name).write_text(text)
        print(f'configs/lckd/{name}: written')


if __name__ == '__main__':
    run_tool(main, make_parser())
