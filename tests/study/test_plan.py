"""What a study runs: cells and their configs, and how weights are chosen."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT
from mmengine.config import Config

from mmlckd.config import read_config
from mmlckd.study import Cell, Study
from mmlckd.study.plan import restricted

DIGITS = 'configs/study/recipes/mnist5k_100.py'


def cell(*method, recipe=DIGITS, losses=(), weights=(), seed=3):
    return Cell('digits', recipe, method, dict(losses), dict(weights), seed)


def study(**fields):
    config = dict(
        data=dict(a='a.py', b='b.py'),
        methods=[[], ['kd'], ['kd', 'lipschitz']],
        seeds=[10, 11],
        selection_seeds=[0, 1],
        grid=dict(kd=[1.0, 2.0], lipschitz=[0.1, 1.0]),
    )
    return Study(Config({**config, **fields}), 'mine')


def test_the_student_alone_is_the_plain_network():
    config = cell().config()
    assert config.model == {**read_config(DIGITS).model.student, 'data_preprocessor': config.data_preprocessor}
    assert config.randomness.seed == 3


def test_a_method_has_its_losses_alone_with_its_weights():
    fsp = dict(type='mmlckd.FSPLoss', connectors=True)
    losses = cell('ofd', 'fsp', losses=dict(fsp=fsp), weights=dict(fsp=0.5)).config().model.losses
    assert losses == dict(ofd=read_config(DIGITS).model.losses.ofd, fsp=dict(**fsp, loss_weight=0.5))


@pytest.mark.parametrize(
    'recipe, hook, with_it, without_it',
    [
        ('configs/lckd/cifar100_wrn28-4_to_wrn16-4.py', 'LossWeightHook', ('ofd', 'lipschitz'), ('ofd',)),
        ('configs/lckd/voc_deeplabv3plus_r101_to_r18.py', 'ConnectorWarmupHook', ('ofd',), ()),
    ],
)
def test_hooks_stay_where_they_serve_a_loss(recipe, hook, with_it, without_it):
    for method, there in ((with_it, True), (without_it, False)):
        hooks = [item.type.split('.')[-1] for item in cell(*method, recipe=recipe).config().custom_hooks]
        assert (hook in hooks) == there


def test_the_digest_is_that_of_the_run_and_not_of_its_seed():
    digest = cell('kd').digest()
    assert cell('kd', seed=4).digest() == digest
    assert len({digest, cell('ofd').digest(), cell('kd', weights=dict(kd=2.0)).digest(), cell().digest()}) == 4


def test_unknown_losses_and_plain_configs_are_refused():
    with pytest.raises(ValueError, match="has the loss 'kdd', and .* has kd, .*, lipschitz_local: choose of these"):
        cell('kdd').config()
    with pytest.raises(ValueError, match='is no distillation config'):
        cell(recipe='configs/demo/mnist5k_wrn10-1.py').config()


def test_the_report_goes_seed_by_seed():
    cells = study().cells()
    assert [(cell.seed, cell.data, cell.method) for cell in cells[:4]] == [
        (10, 'a', ()),
        (10, 'a', ('kd',)),
        (10, 'a', ('kd', 'lipschitz')),
        (10, 'b', ()),
    ]
    assert len(cells) == 2 * 2 * 3


def test_selection_takes_the_best_validation_result_and_keeps_it_for_longer_methods():
    asked = []

    def run(cells):
        asked.extend(cells)
        return [
            dict(validation=cell.weights['kd'] * 10 - abs(cell.weights.get('lipschitz', 1.0) - 1.0) + cell.seed)
            for cell in cells
        ]

    chosen = study(methods=[['kd', 'lipschitz']]).selection(run)
    assert chosen['kd']['weights'] == dict(kd=2.0)
    assert chosen['kd+lipschitz']['weights'] == dict(kd=2.0, lipschitz=1.0)
    assert chosen['kd']['tried'] == dict(kd=[[1.0, 10.5], [2.0, 20.5]])
    assert {cell.seed for cell in asked} == {0, 1} and {cell.data for cell in asked} == {'a', 'b'}
    assert all(cell.weights['kd'] == 2.0 for cell in asked if len(cell.method) == 2)


def test_a_learning_rate_is_chosen_for_every_method_after_its_weights():
    def run(cells):  # the best rate is 0.1 for the student alone, and 0.2 beside losses and changes
        return [
            dict(
                validation=-abs(cell.weights.get('lr', 0.1) - (0.2 if cell.method else 0.1)) - cell.weights.get('kd', 0)
            )
            for cell in cells
        ]

    grid, changes = dict(kd=[1.0, 2.0], lr=[0.1, 0.2]), dict(mixup=dict(x=1))
    chosen = study(methods=[['kd', 'mixup']], grid=grid, changes=changes, selection_data=['b']).selection(run)
    assert chosen['']['weights'] == dict(lr=0.1)
    assert chosen['kd']['weights'] == dict(kd=1.0, lr=0.2)
    assert chosen['kd+mixup']['weights'] == dict(kd=1.0, lr=0.2)
    assert list(chosen['kd']['tried']) == ['kd', 'lr'] and list(chosen['kd+mixup']['tried']) == ['lr']


def test_weights_may_be_chosen_for_each_data_set_by_itself(tmp_path):
    best = dict(a=1.0, b=2.0)
    mine = study(methods=[['kd']], each=True, weights=str(tmp_path / 'weights.json'))
    chosen = mine.selection(lambda cells: [dict(validation=-abs(c.weights['kd'] - best[c.data])) for c in cells])
    assert {data: row['kd']['weights'] for data, row in chosen.items()} == dict(a=dict(kd=1.0), b=dict(kd=2.0))
    mine.weights_file.write_text(json.dumps(dict(each=chosen)))
    assert {cell.data: cell.weights for cell in mine.cells()} == dict(a=dict(kd=1.0), b=dict(kd=2.0))


def test_other_data_keeps_its_own_weights(tmp_path):
    path = tmp_path / 'weights.json'
    path.write_text(json.dumps(dict(methods=dict(kd=dict(weights=dict(kd=5.0, lr=0.3))))))
    other = restricted(study(weights=str(path), methods=[['kd']]), ['a', 'my/own.py'], None, None)
    assert {cell.data: cell.weights for cell in other.cells()} == dict(a=dict(kd=5.0, lr=0.3), own={})


def test_selection_needs_grids():
    with pytest.raises(ValueError, match="'KD \\+ Lipschitz' cannot be tuned"):
        study(grid=dict(kd=[1.0])).selection(lambda cells: [dict(validation=0.0)] * len(cells))


def test_changes_and_the_learning_rate_reach_the_config():
    changes = dict(wide=dict(model=dict(student=dict(backbone=dict(widen_factor=2)))), long=dict(longer=2))
    method = ('kd', 'wide', 'long')
    config = Cell('digits', DIGITS, method, {}, dict(kd=0.5, lr=0.3), 0, changes=changes).config()
    assert config.model.student.backbone.widen_factor == 2 and list(config.model.losses) == ['kd']
    assert (config.train_cfg.max_epochs, config.param_scheduler.T_max, config.train_cfg.val_interval) == (80, 80, 80)
    assert config.optim_wrapper.optimizer.lr == 0.3
    alone = Cell('digits', DIGITS, ('wide',), {}, {}, 0, changes=changes)
    assert alone.config().model.type == 'ImageClassifier' and alone.config().model.backbone.widen_factor == 2
    assert alone.digest() != cell().digest()


def test_twice_as_long_is_so_for_hooks_and_all_schedules(tmp_path):
    recipe = tmp_path / 'recipe.py'
    recipe.write_text(
        f"_base_ = '{ROOT}/configs/lckd/cifar100_wrn28-4_to_wrn16-4.py'\n"
        "param_scheduler = [dict(type='StepLR', step_size=30), dict(type='PolyLR', total_iters=7, begin=2, end=9)]\n"
    )
    long = Cell('a', str(recipe), ('ofd', 'lipschitz', 'long'), {}, {}, 0, changes=dict(long=dict(longer=2))).config()
    once = Cell('a', str(recipe), ('ofd', 'lipschitz'), {}, {}, 0).config()
    before, after = (
        [hook.milestones for hook in config.custom_hooks if 'LossWeightHook' in hook.type] for config in (once, long)
    )
    assert before and after == [[2 * epoch for epoch in epochs] for epochs in before]
    assert [{**each, 'type': 0} for each in long.param_scheduler] == [
        dict(type=0, step_size=60),
        dict(type=0, total_iters=14, begin=4, end=18),
    ]


def test_methods_without_chosen_weights_are_named(tmp_path):
    path = tmp_path / 'weights.json'
    path.write_text(json.dumps(dict(methods=dict(kd=dict(weights=dict(kd=5.0))))))
    mine = study(weights=str(path), methods=[['kd'], ['kd', 'lipschitz']], data=dict(a='a.py'))
    assert mine.untuned() == ['a: KD + Lipschitz']
    assert study(methods=[['kd']]).untuned() == []
    path.write_text(json.dumps(dict(each={})))
    with pytest.raises(ValueError, match="has no 'methods', so it is of another selection than study 'mine'"):
        mine.cells()


def test_seeds_of_selection_are_not_reported():
    with pytest.raises(ValueError, match='seeds has \\[1\\], which are selection_seeds too'):
        study(seeds=[1, 2])
    with pytest.raises(ValueError, match="'mine' has no methods"):
        Study(Config(dict(data={}, seeds=[1])), 'mine')


def test_a_command_line_names_other_data_methods_and_seeds():
    other = restricted(study(), ['b', 'my/own.py'], ['alone', 'kd+at'], [7])
    assert other.data == {'b': 'b.py', 'own': 'my/own.py'}
    assert other.methods == [(), ('kd', 'at')] and other.seeds == [7]
    again = restricted(study(seeds=[10, 10]), ['a.py', 'a'], ['kd', 'kd'], [7, 8, 7])  # its own recipe, by path
    assert again.data == {'a': 'a.py'} and again.methods == [('kd',)] and again.seeds == [7, 8]


@pytest.mark.parametrize('path', sorted((ROOT / 'configs/study').glob('*.py')), ids=lambda path: path.stem)
def test_every_preset_is_complete(path):
    preset = Study(read_config(str(path)), path.stem)
    assert all(cell.config().model for cell in preset.cells()[: len(preset.data) * len(preset.methods)])
    if preset.grid:
        assert preset.selection(lambda cells: [dict(validation=0.0)] * len(cells))
