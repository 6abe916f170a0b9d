"""Results enter the zoo's pages from runs that followed their recipe, and from no others."""

from __future__ import annotations

import json
import sys

import pytest
from conftest import ROOT

from mmlckd.config import read_config

sys.path.insert(0, str(ROOT / 'tools' / 'maintenance'))
import model_zoo  # noqa: E402  a tool, not a package

NAME = 'cifar100_wrn28-4_to_wrn16-2'


def work_dir(folder, epochs=200, seed=3, top1=76.25, **changes):
    """What a training leaves: its config and its log."""
    config = read_config(f'configs/lckd/{NAME}.py')
    config.randomness = dict(seed=seed)
    config.merge_from_dict(changes)
    (folder / '20260101_000000' / 'vis_data').mkdir(parents=True)
    config.dump(folder / f'{NAME}.py')
    lines = [
        {'accuracy/top1': 1.0, 'step': 1},
        {'loss': 1.0, 'step': 70_000},
        {'accuracy/top1': top1, 'accuracy/top5': 93.0, 'step': epochs},
    ]
    (folder / '20260101_000000' / 'vis_data' / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    return folder


def test_a_finished_run_becomes_an_error_in_the_table_and_the_metafile(tmp_path, monkeypatch):
    record = model_zoo.record_of(work_dir(tmp_path / 'run'))
    assert (record['recipe'], record['metric'], record['value'], record['seed']) == (NAME, 'top-1 error %', 23.75, 3)
    zoo = tmp_path / 'zoo'
    (zoo / 'records').mkdir(parents=True)
    for name in ('README.md', 'published.yml', f'{NAME}.py'):
        (zoo / name).symlink_to(model_zoo.ZOO / name)
    for seed, value in ((3, 23.75), (4, 24.25)):
        (zoo / 'records' / f'{NAME}_seed{seed}.json').write_text(json.dumps(dict(record, seed=seed, value=value)))
    monkeypatch.setattr(model_zoo, 'ZOO', zoo)
    monkeypatch.setattr(
        model_zoo, 'recipes', lambda: [(NAME, read_config(f'configs/lckd/{NAME}.py'), 703_284, 5_872_180)]
    )
    assert (
        "| 27.32 / not run | 24.08 / not run | 23.78 / 24.00 ± 0.35 (2 seeds) | OFD's README; LONDON: a comment in its script |"
        in model_zoo.written()['README.md']
    )
    assert 'Result: 24.00 ± 0.35 (2 seeds)' in model_zoo.yaml.safe_dump(
        model_zoo.yaml.safe_load(model_zoo.written()['metafile.yml']), allow_unicode=True
    )


@pytest.mark.parametrize(
    'changes, sentence',
    [
        (dict(epochs=199), 'was last evaluated at 199 of 200: finish it with --resume'),
        ({'train_cfg.max_epochs': 100, 'epochs': 100}, 'ran with another train_cfg'),
        ({'optim_wrapper.optimizer.lr': 0.05}, 'ran with another optim_wrapper'),
        ({'model.losses.lipschitz.loss_weight': 1.0}, 'ran with other losses'),
        ({'train_dataloader.dataset.indices': 100}, 'ran on a part of the data'),
    ],
)
def test_a_run_that_is_not_the_recipes_is_refused(changes, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        model_zoo.record_of(work_dir(tmp_path / 'run', **changes))


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='has 0 config files'):
        model_zoo.record_of(tmp_path)
    (tmp_path / 'mine.py').write_text('a = 1\n')
    with pytest.raises(ValueError, match="'mine' is no recipe"):
        model_zoo.record_of(tmp_path)
