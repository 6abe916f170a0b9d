"""Results enter the zoo's pages from runs that followed their recipe, and from no others."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

import pytest
import yaml
from conftest import ROOT

from mmlckd.config import read_config

sys.path.insert(0, str(ROOT / 'tools' / 'maintenance'))
import model_zoo  # noqa: E402  a tool, not a package
import page_tables  # noqa: E402
import recipe_tables  # noqa: E402

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


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A zoo of one recipe, without networks to build and without other pages."""
    folder = tmp_path / 'zoo'
    folder.mkdir()
    for name in ('published.yml', f'{NAME}.py'):
        (folder / name).symlink_to(recipe_tables.ZOO / name)
    (folder / 'README.md').write_text('# Recipes\n\n<!-- table: classification -->\n<!-- end -->\n')
    (folder / 'metafile.yml').write_text('')
    recipes = [(NAME, read_config(f'configs/lckd/{NAME}.py'), 703_284, 5_872_180)]
    for module in (model_zoo, recipe_tables):
        monkeypatch.setattr(module, 'ZOO', folder)
    monkeypatch.setattr(page_tables, 'ROOT', tmp_path)
    monkeypatch.setattr(page_tables, 'pages', lambda: [folder / 'README.md'])
    monkeypatch.setattr(recipe_tables, 'recipes', lambda: recipes)
    return folder


def test_a_finished_run_becomes_an_error_in_the_table_and_the_metafile(tmp_path, zoo):
    runs = [work_dir(tmp_path / 'first'), work_dir(tmp_path / 'second', seed=4, top1=75.75)]
    model_zoo.main(Namespace(add=runs))
    record = json.loads((zoo / 'records' / f'{NAME}_seed3.json').read_text())
    assert (record['recipe'], record['metric'], record['value']) == (NAME, 'top-1 error %', 23.75)  # 100 - 76.25
    # errors of 23.75 and 24.25: mean 24.00, deviation 0.5 / sqrt(2)
    row = (
        "| 27.32 / not run | 24.08 / not run | 23.78 / 24.00 ± 0.35 (2 seeds) | OFD's README; "
        'LONDON: a comment in its script |'
    )
    assert row in (zoo / 'README.md').read_text()
    (model,) = yaml.safe_load((zoo / 'metafile.yml').read_text())['Models']
    assert model['Results'][0]['Metrics'] == {'Result': '24.00 ± 0.35 (2 seeds)'}


def test_nothing_is_kept_where_one_of_the_runs_is_refused(tmp_path, zoo):
    with pytest.raises(ValueError, match='was last evaluated at 199 of 200'):
        model_zoo.main(Namespace(add=[work_dir(tmp_path / 'run'), work_dir(tmp_path / 'short', epochs=199)]))
    assert not (zoo / 'records').exists()


@pytest.mark.parametrize(
    'changes, sentence',
    [
        (dict(epochs=199), 'was last evaluated at 199 of 200: finish it with --resume'),
        ({'train_cfg.max_epochs': 100, 'epochs': 100}, 'ran with another train_cfg'),
        ({'optim_wrapper.optimizer.lr': 0.05}, 'ran with another optim_wrapper'),
        ({'model.losses.lipschitz.loss_weight': 1.0}, 'ran with other losses'),
        ({'train_dataloader.dataset.indices': 100}, r'ran on a part of the data \(dataset.indices\)'),
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
