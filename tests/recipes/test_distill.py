"""tools/distill.py and mmlckd.make_recipe on the demo's data: the recipe, its table, its text, its errors."""

from __future__ import annotations

import argparse
import copy
import logging
import math

import distill
import pytest
import torch
from conftest import ALONE, ROOT, TEACHER, run, save_untrained
from mmengine.config import Config
from mmengine.logging import MessageHub

import mmlckd
from mmlckd.cli import read_run_config
from mmlckd.config import read_config
from mmlckd.recipes import Recipe, calibration, design, make_recipe, tables, write
from mmlckd.recipes.calibration import first_optimizer, measure, training_batches
from mmlckd.registry import MODELS

pytestmark = pytest.mark.slow
FASTER = 'configs/demo/digits_faster_rcnn_r18x16.py'


@pytest.fixture
def on_mnist(mnist):
    return {'train_dataloader.dataset.data_root': str(mnist), 'val_dataloader.dataset.data_root': str(mnist)}


@pytest.fixture(scope='module')
def recipe(mnist, teacher):
    return design(ALONE, TEACHER, str(teacher), overrides={'train_dataloader.dataset.data_root': str(mnist)}, batches=3)


def read(path, **options):
    """A recipe as tools/train.py reads it."""
    return read_run_config(argparse.Namespace(config=str(path), cfg_options=options))


def test_a_recipe_is_written_printed_and_trained(mnist, teacher, tmp_path):
    path = tmp_path / 'configs' / 'mine.py'
    options = [f'{name}_dataloader.dataset.data_root={mnist}' for name in ('train', 'val', 'test')]
    command = ['tools/distill.py', ALONE, TEACHER, teacher, '--recipe', path, '--work-dir', tmp_path / 'work']
    result = run(*command, '--batches', 2, '--cfg-options', *options, 'train_cfg.max_epochs=1')
    assert result.returncode == 0, result.stderr[-3000:]
    lines = result.stdout.splitlines()
    for head in ('stride  student', 'loss  weight', '(measured on 2 batches of 16 training images'):
        assert any(line.startswith(head) for line in lines), head
    assert len(path.read_text().splitlines()) <= 24  # about 20
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()
    result = run(
        'tools/train.py', path, '--work-dir', tmp_path / 'again', '--cfg-options', *options, 'train_cfg.max_epochs=1'
    )
    assert result.returncode == 0, result.stderr[-3000:]
    # What is there is kept, with what was changed by hand.
    path.write_text(path.read_text().replace('tau=4.0', 'tau=2.0'))
    kept = path.read_text()
    result = run(*command, '--write-only')
    assert result.returncode == 0 and 'is there already and is used as it is' in result.stdout
    assert path.read_text() == kept
    other = [part if part != TEACHER else ALONE for part in command]
    result = run(*other, '--write-only')
    assert result.returncode == 1 and 'name another file with --recipe' in result.stderr
    wider = tmp_path / 'wider.py'
    wider.write_text(
        f"_base_ = '{ROOT / ALONE}'\nmodel = dict(backbone=dict(widen_factor=3), head=dict(in_channels=192))\n"
    )
    result = run(*[wider if part == ALONE else part for part in command], '--write-only')
    assert result.returncode == 1 and f'for another student than {wider}' in result.stderr
    result = run(*command, '--write-only', '--overwrite', '--no-calibration')
    assert result.returncode == 0 and 'default weights: nothing was measured' in result.stdout
    assert 'tau=4.0' in path.read_text()


def test_the_text_is_the_config(recipe, tmp_path):
    path = tmp_path / 'deep' / 'recipe.py'
    write(recipe, path)
    read_back, made = read(path), recipe.as_config()
    assert read_back.model == made.model
    assert read_back.custom_imports == made.custom_imports
    assert read_back.train_dataloader == made.train_dataloader
    assert list(path.parent.iterdir()) == [path]
    assert max(map(len, path.read_text().splitlines())) <= 120 + len(str(ROOT))


def test_a_base_of_another_package(teacher, tmp_path):
    student = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
    recipe = design(student, student, _random(student, tmp_path), calibrate=False)
    write(recipe, tmp_path / 'recipe.py')
    config = read(tmp_path / 'recipe.py')
    assert config.model.student.pop('_scope_') == 'mmpretrain'  # MMEngine writes it into bases of other packages
    assert config.model == recipe.as_config().model
    assert 'mmlckd' in config.custom_imports.imports
    assert [entry.get('max_share') for entry in config.model.losses.values()] == [None, 0.5]


def _random(name, folder):
    """A checkpoint of a config with random weights."""
    from conftest import save_untrained

    return str(save_untrained(name, folder / 'random.pth'))


def test_each_term_begins_with_its_share_of_the_gradient(recipe, mnist):
    """On other batches than those it was measured on, and within a factor of 2: medians of three batches scatter."""
    config = recipe.as_config()
    config.train_dataloader.dataset.data_root = str(mnist)
    fields = copy.deepcopy(dict(config.model, data_preprocessor=config.data_preprocessor))
    for entry in fields['losses'].values():
        entry.pop('max_share', None)
    torch.manual_seed(1)
    model = MODELS.build(fields)
    logging.disable(logging.INFO)
    model.init_weights()
    logging.disable(logging.NOTSET)
    wanted = {term.name: term.share for term in recipe.plan.terms}
    found = measure(model, training_batches(config), wanted, first_optimizer(model, config), count=3)
    # The losses have the recipe's weights already, so what is found corrects them.
    assert all(0.5 < weight < 2 for weight in found.weights.values())
    for term in recipe.plan.terms:
        assert recipe.measured.gradients[term.name] == pytest.approx(term.share, rel=0.06)  # weights have two digits


def test_what_asks_for_the_iteration_is_told(recipe, mnist, monkeypatch):
    """As mmdet's BatchSyncRandomResize does, which YOLOX has."""
    config = recipe.as_config()
    config.train_dataloader.dataset.data_root = str(mnist)
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    asked, original = [], model.data_preprocessor.forward

    def forward(data, training):
        asked.append(MessageHub.get_current_instance().get_info('iter'))
        return original(data, training)

    monkeypatch.setattr(model.data_preprocessor, 'forward', forward)
    shares = {term.name: 1.0 for term in recipe.plan.terms}
    measure(model, training_batches(config), shares, first_optimizer(model, config), steps=2, count=2)
    assert asked == [0, 1, 2, 3]


def test_a_guard_never_holds_at_the_start(recipe):
    for term in recipe.plan.terms:
        guard = recipe.max_share(term)
        assert guard is None or recipe.measured.shares[term.name] < guard < 1
    assert [term.name for term in recipe.plan.terms if term.guarded] == ['ofd']


def test_the_table_names_every_tap_and_loss(recipe):
    text = tables(recipe)
    for ours, theirs in recipe.plan.pairs:
        assert str(ours.tap) in text and str(theirs.tap) in text
    for term in recipe.plan.terms:
        assert f'{recipe.weight(term):g}' in text


def test_from_python(teacher):
    config = mmlckd.make_recipe(ALONE, TEACHER, str(teacher), calibrate=False)
    assert isinstance(config, Config)
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    assert [entry.name for entry in model.distiller.entries] == ['kd', 'ofd']
    assert make_recipe is mmlckd.make_recipe


def test_guidance_looks_at_two_views(teacher):
    config = make_recipe(ALONE, TEACHER, str(teacher), guidance=True, calibrate=False)
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    assert {entry.name: entry.views for entry in model.distiller.entries} == dict(kd='both', ofd='first', local='both')


def test_guidance_is_measured(mnist, teacher):
    overrides = {'train_dataloader.dataset.data_root': str(mnist)}
    recipe = design(ALONE, TEACHER, str(teacher), guidance=True, overrides=overrides, batches=2)
    assert all(0 < recipe.measured.weights[name] < 1000 for name in ('kd', 'ofd', 'local'))


def test_the_same_weights_every_time_and_no_trace_in_the_random_state(recipe, mnist, teacher):
    overrides = {'train_dataloader.dataset.data_root': str(mnist)}
    torch.manual_seed(7)
    again = design(ALONE, TEACHER, str(teacher), overrides=overrides, batches=3)
    state = torch.get_rng_state()
    torch.manual_seed(7)
    assert again.measured == recipe.measured and torch.equal(state, torch.get_rng_state())


def test_it_is_measured_where_the_training_will_begin(mnist, teacher, recipe):
    start = f'{teacher}.of_the_student.pth'
    save_untrained(ALONE, start)
    content = torch.load(start)
    content['state_dict'] = {
        name: 3 * value if 'conv' in name else value for name, value in content['state_dict'].items()
    }
    torch.save(content, start)
    overrides = {'train_dataloader.dataset.data_root': str(mnist), 'load_from': start}
    assert design(ALONE, TEACHER, str(teacher), overrides=overrides, batches=3).measured != recipe.measured


def test_data_that_give_no_batch(mnist):
    config = read_config(ALONE)
    config.train_dataloader.dataset.data_root = str(mnist)
    config.train_dataloader.update(batch_size=500, drop_last=True)
    config.train_dataloader.dataset.indices = 10
    with pytest.raises(ValueError, match='train_dataloader gives no batch of 16 images from 10'):
        next(training_batches(config))


def test_losses_without_finite_gradients_are_named(recipe, monkeypatch):
    row = dict(student=(1.0, 1.0), kd=(1.0, 1.0), size=4)
    for odd, message in (
        (dict(row, kd=(math.nan, 1.0)), 'losses.kd and its'),
        (dict(row, student=(1.0, 0.0)), 'the student'),
    ):
        monkeypatch.setattr(calibration, '_gradients', lambda *_, odd=odd: dict(odd))
        model = torch.nn.Module()
        model.backbone = torch.nn.Linear(1, 1)
        with pytest.raises(ValueError, match=message):
            calibration.measure(model, [{}] * 3, dict(kd=1.0), None, steps=0, count=2)
    with pytest.raises(ValueError, match='--batches is 0'):
        design(ALONE, TEACHER, 'teacher.pth', batches=0)


def test_other_classes_leave_the_logits_out(teacher, tmp_path):
    (tmp_path / 'seven.py').write_text(f"_base_ = '{ROOT / TEACHER}'\nmodel = dict(head=dict(num_classes=7))\n")
    config = str(tmp_path / 'seven.py')
    recipe = design(ALONE, config, _random(config, tmp_path), calibrate=False)
    assert [term.name for term in recipe.plan.terms] == ['ofd']
    assert recipe.plan.notes == ['no loss on logits: the student has 10 classes, the teacher 7']
    assert tables(recipe).endswith(recipe.plan.notes[0])
    with pytest.raises(ValueError, match='leave --guidance out'):
        design(ALONE, config, _random(config, tmp_path), calibrate=False, guidance=True)


WRONG = {
    'no such student': (['nowhere.py', TEACHER, '{teacher}'], "config 'nowhere.py' does not exist"),
    'no such checkpoint': ([ALONE, TEACHER, 'nowhere.pth'], 'nowhere.pth'),
    'the wrong checkpoint': ([ALONE, ALONE, '{teacher}'], 'does not fit'),
    'a recipe as the student': (
        ['configs/demo/mnist5k_wrn16-2_to_wrn10-1.py', TEACHER, '{teacher}'],
        'is a recipe already: train it with tools/train.py',
    ),
    'a detector for a classifier': ([ALONE, FASTER, '{teacher}'], 'a detector: give a teacher of the'),
    'no data': ([ALONE, TEACHER, '{teacher}', '--cfg-options', 'train_dataloader.dataset.data_root=nowhere/'],
                'calibration reads training data'),
    'a new-style student': (['{new}', TEACHER, '{teacher}'], 'a recipe cannot have it as its base'),
    'an unknown family': (['{unknown}', TEACHER, '{teacher}'], 'list its module paths'),
}  # fmt: skip


@pytest.mark.parametrize('case', WRONG)
def test_wrong_input_ends_in_one_sentence_and_leaves_no_file(case, teacher, mnist, tmp_path):
    arguments, sentence = WRONG[case]
    unknown = tmp_path / 'unknown.py'
    unknown.write_text(
        f"_base_ = '{ROOT / ALONE}'\n"
        "model = dict(backbone=dict(_delete_=True, type='LeNet5'), neck=None, head=dict(in_channels=120))\n"
    )
    new = tmp_path / 'new.py'
    new.write_text('from mmengine.config import read_base\n\nwith read_base():\n    from .base import *\n')
    arguments = [part.format(teacher=teacher, unknown=unknown, new=new) for part in arguments]
    if '--cfg-options' not in arguments:
        arguments += ['--cfg-options', f'train_dataloader.dataset.data_root={mnist}']
    path = tmp_path / 'recipes' / 'recipe.py'
    result = run('tools/distill.py', *arguments[:3], '--recipe', path, '--write-only', *arguments[3:])
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith('error: ') and sentence in result.stderr
    assert 'Traceback' not in result.stderr
    assert not path.exists() and not list(tmp_path.rglob('.recipe*'))


def test_the_recipe_of_a_pair_gets_a_name_of_both():
    args = distill.make_parser().parse_args([ALONE, TEACHER, 'teacher.pth'])
    assert distill.default_recipe(args) == 'recipes/mnist5k_wrn16-2_to_mnist5k_wrn10-1.py'


def test_a_recipe_of_default_weights_says_so(recipe):
    plain = Recipe(recipe.student, recipe.config, recipe.teacher, recipe.checkpoint, recipe.plan)
    assert 'default weights: nothing was measured' in plain.as_text('recipe.py')
    assert 'default weights: nothing was measured' in tables(plain)
