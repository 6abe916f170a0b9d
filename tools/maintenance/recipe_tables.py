"""The recipes: their tables and OpenMMLab's metafile, from the configs, the published numbers and records of runs."""

from __future__ import annotations

import functools
import json
import statistics
from pathlib import Path
from unittest import mock

import yaml
from marked_text import table
from mmengine.config import Config
from mmengine.config import utils as mmengine_config_utils
from mmengine.registry import init_default_scope

from mmlckd.config import bare_model, read_config
from mmlckd.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / 'configs' / 'lckd'
DATA = dict(cifar100='CIFAR-100', imagenet='ImageNet-1k', voc='PASCAL VOC')
TASKS = dict(mmpretrain='Image Classification', mmdet='Object Detection', mmseg='Semantic Segmentation')
LABELS = dict(teacher='Teacher', alone='Student Alone', ofd='OFD', london='LONDON')
NOT_RUN = 'not run'


@functools.cache
def recipes() -> list[tuple[str, Config, int, int]]:
    """Name and config of every recipe, and the parameters of its student and its teacher."""
    # For each config of a package MMEngine reads all metafiles of that package: once is enough.
    with mock.patch.object(mmengine_config_utils, 'load', functools.cache(mmengine_config_utils.load)):
        found = []
        for path in sorted(ZOO.glob('*.py')):
            config = read_config(path)
            found.append((path.stem, config, parameters(path), parameters(config.model.teacher.config)))
        return found


@functools.cache
def parameters(path: str | Path) -> int:
    """Number of parameters of a config's plain network."""
    config = read_config(path)
    init_default_scope(config.default_scope)
    __import__(f'{config.default_scope}.models')
    return sum(parameter.numel() for parameter in MODELS.build(bare_model(config)).parameters())


def published() -> dict[str, dict]:
    return yaml.safe_load((ZOO / 'published.yml').read_text())


def result_of(name: str) -> str:
    """Mean over the recorded runs of a recipe, with their number; or that it was not run."""
    values = [json.loads(path.read_text())['value'] for path in sorted((ZOO / 'records').glob(f'{name}_seed*.json'))]
    if not values:
        return NOT_RUN
    spread = f' ± {statistics.stdev(values):.2f} ({len(values)} seeds)' if len(values) > 1 else ''
    return f'{statistics.mean(values):.2f}{spread}'


def classification_table() -> str:
    """The papers' pairs: published errors beside those of runs here."""
    rows, known = [], published()
    for name, config, student, teacher in recipes():
        if config.default_scope != 'mmpretrain':
            continue
        pair = name.removesuffix('_scale_free')
        row = known[pair] if pair == name else {}
        alone = f'{pair.split("_")[0]}_{pair.split("_to_")[1]}'
        runs = dict(alone=alone, ofd=f'{pair}_ofd', london=name)
        results = [f'{row.get(key) or "-"} / {result_of(run)}' for key, run in runs.items()]
        sizes = [f'{teacher / 1e6:.2f}', f'{student / 1e6:.2f}']
        rows.append([f'[{name}]({name}.py)', row.get('setting', ''), *sizes, *results, row.get('source', '-')])
    results = ['alone', 'OFD', 'LONDON / this recipe']
    return table(['recipe', 'setting', 'teacher, M', 'student, M', *results, 'published in'], rows)


def voc_table() -> str:
    """The recipes on PASCAL VOC and their results."""
    rows = []
    for name, config, student, teacher in recipes():
        if config.default_scope == 'mmpretrain':
            continue
        weights = 'zoo' if '://' in config.model.teacher.checkpoint else f'`{config.model.teacher.config}`'
        sizes = f'{teacher / 1e6:.2f}', f'{student / 1e6:.2f}'
        losses = ', '.join(config.model.losses)
        rows.append([f'[{name}]({name}.py)', sizes[0], weights, sizes[1], losses, result_of(name)])
    return table(['recipe', 'teacher, M', 'its weights', 'student, M', 'distillation losses', 'result'], rows)


def metafile() -> str:
    """OpenMMLab's description of the recipes."""
    collection = {
        'Name': 'LONDON',
        'Metadata': {'Training Techniques': ['Knowledge Distillation', 'Lipschitz Continuity']},
        'Paper': {
            'Title': 'Lipschitz Continuity Guided Knowledge Distillation',
            'URL': 'https://arxiv.org/abs/2108.12905',
        },
        'README': 'configs/lckd/README.md',
    }
    content = dict(Collections=[collection], Models=[described(*recipe) for recipe in recipes()])
    note = '# Written by tools/maintenance/page_tables.py. Results is null where a recipe was not run here.\n'
    return note + yaml.safe_dump(content, sort_keys=False, width=140)


def described(name: str, config: Config, student: int, teacher: int) -> dict:
    """A recipe's entry in the metafile."""
    data, row, result = DATA[name.split('_')[0]], published().get(name), result_of(name)
    metadata = {
        'Training Data': data,
        'Parameters': student,
        'Teacher': config.model.teacher.config,
        'Teacher Parameters': teacher,
    }
    if row:
        metadata['Published Top 1 Error'] = labelled(row)
        if 'top5' in row:
            metadata['Published Top 5 Error'] = labelled(row['top5'])
        metadata['Published In'] = row['source']
    results = [{'Task': TASKS[config.default_scope], 'Dataset': data, 'Metrics': {'Result': result}}]
    return {
        'Name': name,
        'In Collection': 'LONDON',
        'Metadata': metadata,
        'Results': None if result == NOT_RUN else results,
        'Config': f'configs/lckd/{name}.py',
        'Weights': None,
    }


def labelled(errors: dict) -> dict:
    return {label: errors.get(key) for key, label in LABELS.items()}
