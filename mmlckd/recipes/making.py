"""From two configs and a checkpoint to a recipe."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint, set_random_seed
from torch import nn

from mmlckd.checkpoints import install_safe_loader
from mmlckd.cli import check_prerequisites, enter_scope
from mmlckd.config import bare_model, host_of, is_distiller, override, read_config
from mmlckd.distillers import FrozenTeacher
from mmlckd.registry import MODELS
from mmlckd.resumability.random_states import random_state, set_random_state

from .calibration import Measured, first_optimizer, measure, training_batches
from .plan import TASKS, Plan, choose
from .recipe import Recipe


def make_recipe(
    student: str, teacher: str, checkpoint: str, guidance: bool = False, calibrate: bool = True, **options: Any
) -> Config:
    """The config of a distillation, ready for MMEngine's Runner once it has a ``work_dir``.

        config = mmlckd.make_recipe('mmpretrain::resnet/resnet18_8xb32_in1k.py', 'r50.py', 'r50.pth')
        config.work_dir = 'work_dirs/mine'
        Runner.from_cfg(config).train()

    Args:
        student: Config of the student, a path or the name of another package's (``mmdet::...``).
        teacher: Config of the teacher, in the same forms.
        checkpoint: The teacher's checkpoint, a path or an http(s) address.
        guidance: Whether a second view of each batch is compared too, see :func:`.choose`.
        calibrate: Whether the weights are measured on batches of the training data; else they are default ones.
        options: See :func:`design`.

    Raises:
        FileNotFoundError, ValueError: As :func:`design`.

    Source: this project.
    """
    return design(student, teacher, checkpoint, guidance, calibrate, **options).as_config()


def design(
    student: str,
    teacher: str,
    checkpoint: str,
    guidance: bool = False,
    calibrate: bool = True,
    overrides: dict[str, Any] | None = None,
    batches: int = 12,
) -> Recipe:
    """Choose taps, losses and weights for a pair. Nothing is written.

    Args:
        student, teacher, checkpoint, guidance, calibrate: See :func:`make_recipe`.
        overrides: Dotted fields of the recipe and their values, as ``--cfg-options`` has them. They hold while the
            weights are measured; they are not part of the recipe.
        batches: How many batches are measured.

    Raises:
        FileNotFoundError: A config, the checkpoint or the training data does not exist.
        ValueError: The student is distilled already, the two have different tasks, the checkpoint does not fit, or the
            rule for taps finds nothing.
    """
    if batches < 1:
        raise ValueError(f'--batches is {batches}: at least 1 is needed')
    install_safe_loader()
    config = _student_config(student, overrides or {})
    with _seeded((config.get('randomness') or {}).get('seed') or 0):  # the same weights every time
        _check_tasks(student, config, teacher)
        if calibrate:
            _check_data(config)
        enter_scope(config)
        frozen = FrozenTeacher(dict(config=teacher, checkpoint=checkpoint))
        frozen.load()
        network = MODELS.build(bare_model(config))
        plan = choose(network, frozen.model, guidance)
        recipe = Recipe(student, read_config(student), teacher, checkpoint, plan)
        if not calibrate:
            return recipe
        return replace(recipe, measured=_measure(recipe, plan, network, frozen.model, overrides or {}, batches))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers of a seed, and afterwards those that would have come anyway."""
    former = random_state()
    set_random_seed(seed)
    try:
        yield
    finally:
        set_random_state(former)


def _student_config(student: str, overrides: dict[str, Any]) -> Config:
    """The student's config, with the overrides that concern it: of its data, and of ``model.student``."""
    config = read_config(student)
    if config.get('model') is None:
        raise ValueError(f'config {student!r} has no model: give one that trains a network')
    if is_distiller(config.model):
        raise ValueError(f'config {student!r} is a recipe already: train it with tools/train.py')
    own = {name: value for name, value in overrides.items() if not name.startswith('model.')}
    for name, value in overrides.items():
        if name.startswith('model.student.'):
            own[f'model.{name.removeprefix("model.student.")}'] = value
    return override(config, own)


def _check_tasks(student: str, config: Config, teacher: str) -> None:
    theirs = read_config(teacher)
    if theirs.get('model') is None:
        raise ValueError(f'config {teacher!r} has no model: give the one that trained the teacher')
    ours, other = host_of(config), host_of(theirs)
    if ours not in TASKS:
        raise ValueError(
            f'config {student!r} is of {ours!r}: give a classifier of mmpretrain, a detector of mmdet or a segmentor '
            'of mmseg'
        )
    if other not in (ours, 'mmpretrain'):
        kind = TASKS.get(other or '', f'model of {other!r}')
        raise ValueError(
            f"student {student!r} is a {TASKS[ours]} and teacher {teacher!r} a {kind}: give a teacher of the student's "
            'own task, or a classifier'
        )


def _check_data(config: Config) -> None:
    if not config.get('train_dataloader') or not config.get('optim_wrapper'):
        raise ValueError(
            'calibration needs train_dataloader and optim_wrapper, and the student config lacks one of them: give a '
            'config that trains, or write default weights with --no-calibration'
        )
    try:
        check_prerequisites(config, ('train_dataloader',))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'calibration reads training data, and {error}; --no-calibration writes default weights'
        ) from error


def _measure(
    recipe: Recipe, plan: Plan, student: nn.Module, teacher: nn.Module, overrides: dict[str, Any], batches: int
) -> Measured:
    """Measure on a copy of the student that is thrown away, in a model that has no guards and every weight 1."""
    config = override(recipe.as_config(), overrides)
    fields = copy.deepcopy({name: value for name, value in config.model.items() if name not in ('student', 'teacher')})
    for entry in fields['losses'].values():
        entry.pop('max_share', None)
        entry['loss_weight'] = 1.0
    model = MODELS.build(dict(fields, student=student, teacher=teacher))
    logging.disable(logging.INFO)  # MMEngine names every weight that it initialises
    try:
        model.init_weights()
        if config.get('load_from'):  # where the training will begin
            load_checkpoint(model, config.load_from, map_location='cpu')
    finally:
        logging.disable(logging.NOTSET)
    model.to('cuda' if torch.cuda.is_available() else 'cpu')
    shares = {term.name: term.share for term in plan.terms}
    return measure(model, training_batches(config), shares, first_optimizer(model, config), count=batches)
