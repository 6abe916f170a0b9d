"""The networks and the images that a config and its checkpoints give to an analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.runner import set_random_seed
from torch import nn
from torch.utils.data import DataLoader

from mmlckd.checkpoints import load_weights
from mmlckd.config import bare_model, is_distiller
from mmlckd.distillers.entry_parts import both_sides
from mmlckd.distillers.frozen_teacher import FrozenTeacher
from mmlckd.losses import LipschitzKDLoss
from mmlckd.registry import MODELS, same_type
from mmlckd.taps import OUTPUTS


class ComparedMaps(NamedTuple):
    """What a config's Lipschitz loss compares: taps of both networks, and whether their norms are of centred maps."""

    student_taps: str | Sequence | None
    teacher_taps: str | Sequence | None
    center: bool | None


class Subject(NamedTuple):
    """A network to analyse, the file that its weights are from (None: untrained), and its taps."""

    model: nn.Module
    checkpoint: str | Path | None
    taps: str | Sequence | None


def compared_maps(config: Config) -> ComparedMaps:
    """Taps and centring of the first Lipschitz loss of a config, or of a default one where there is none.

    All three are None for a config that does not distil.

    Source: this project.
    """
    if not is_distiller(config.model):
        return ComparedMaps(None, None, None)
    spec = _lipschitz_loss(config)
    options = {key: spec[key] for key in ('distance', 'center') if key in spec}
    center = LipschitzKDLoss(**options).center
    taps = spec.get('taps') or config.model.get('taps')
    if isinstance(taps, dict):
        return ComparedMaps(taps['student'], taps['teacher'], center)
    return ComparedMaps(taps, taps, center)


def _lipschitz_loss(config: Config) -> dict:
    """The first Lipschitz loss of a distillation config; empty where there is none."""
    for candidate in config.model.losses.values():
        if candidate and same_type(candidate['type'], MODELS, LipschitzKDLoss):
            return candidate
    return {}


def load_networks(
    config: Config,
    checkpoint: str | Path,
    others: Mapping[str, str | Path] | None = None,
    untrained: bool = False,
    teacher: str | Path | None = None,
    seed: int = 0,
) -> dict[str, Subject]:
    """The networks of a report by name. All are loaded before the first is analysed.

    Args:
        config: Of a distillation, or of a plain training.
        checkpoint: Weights of its student, or of the plain network.
        others: Weights of the same student, trained otherwise, by the name that each has in the report.
        untrained: Whether the student before training belongs to the report.
        teacher: Weights of the teacher; None for those that the config names. Without either the teacher is left out.
        seed: Of the untrained weights.

    Returns:
        'student' (or 'network' of a plain training), 'untrained', the others and 'teacher', as far as asked for.

    Raises:
        ValueError: A teacher's weights are given and the config has no teacher, or another network takes one of the
            names above.
        FileNotFoundError: A checkpoint does not exist.

    Source: this project.
    """
    distils = is_distiller(config.model)
    if teacher and not distils:
        raise ValueError(
            f'--teacher is {str(teacher)!r} and {config.filename} has no teacher: give a config that distils, or '
            'analyse that network with its own config'
        )
    maps = compared_maps(config)
    frozen = _teacher_of(config, teacher) if distils else None
    if maps.student_taps in OUTPUTS:  # of logits there are no transmitting norms
        maps = maps._replace(student_taps=None, teacher_taps=None)
    elif frozen is not None and maps.student_taps == 'auto':
        ours, theirs = both_sides('lipschitz', 'auto', MODELS.build(bare_model(config)), frozen)
        maps = maps._replace(student_taps=ours, teacher_taps=theirs)

    def student(weights: str | Path | None) -> Subject:
        set_random_seed(seed)
        model = MODELS.build(bare_model(config))
        if weights is None:
            model.init_weights()
        else:
            load_weights(model, weights)
        return Subject(model, weights, maps.student_taps)

    networks = {'student' if distils else 'network': student(checkpoint)}
    if untrained:
        networks['untrained'] = student(None)
    for name, weights in (others or {}).items():
        if name in (*networks, 'teacher'):
            raise ValueError(f'--compare has the name {name!r}, which another network of the report has: choose one')
        networks[name] = student(weights)
    if frozen is not None and frozen.checkpoint:
        frozen.load()
        networks['teacher'] = Subject(frozen.model, frozen.checkpoint, maps.teacher_taps)
    return networks


def _teacher_of(config: Config, checkpoint: str | Path | None) -> FrozenTeacher:
    """The teacher; of several, the one that the Lipschitz loss names, or else the first."""
    teachers = config.model.get('teachers') or dict(teacher=config.model.get('teacher'))
    name = _lipschitz_loss(config).get('teacher', next(iter(teachers)))
    spec = teachers[name]
    if isinstance(spec, dict):
        spec = dict(spec, norm_stats='running')  # the analysis is of evaluation mode
    teacher = FrozenTeacher(spec)
    if checkpoint:
        teacher.checkpoint = str(checkpoint)
    return teacher


def draw_images(loader: DataLoader, count: int, seed: int) -> tuple[list[int], list]:
    """Random images of a data set, since the first ones are often of one class.

    Args:
        loader: The data set, its batch size, and how it makes a batch.
        count: Number of images; all of the data set where it has fewer.
        seed: Of the draw.

    Returns:
        Their indices in the data set, ascending, and their batches.

    Source: this project.
    """
    dataset: Any = loader.dataset
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    indices = order[:count].sort().values.tolist()
    batches = []
    size = loader.batch_size or 1
    for start in range(0, len(indices), size):
        batches.append(loader.collate_fn([dataset[i] for i in indices[start : start + size]]))
    return indices, batches
