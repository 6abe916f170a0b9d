"""Weights of distillation losses, measured on real batches."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

LARGEST = 1000.0  # no weight is above it: a loss that hardly moves the student is not blown up
CPU_BATCH = 16  # images a batch at most where there is no GPU


@dataclass(frozen=True)
class Measured:
    """What was measured of the losses of a recipe.

    Attributes:
        weights: Weight of each loss by name, to two digits.
        gradients: Its gradient at that weight on the student's backbone, in parts of the student's own.
        shares: Its part of the total loss at that weight.
        on: What it was measured on, for people.
    """

    weights: dict[str, float]
    gradients: dict[str, float]
    shares: dict[str, float]
    on: str


def measure(
    model: nn.Module,
    batches: Iterable[dict],
    shares: dict[str, float],
    optimizer: OptimWrapper,
    steps: int = 36,
    count: int = 12,
) -> Measured:
    """Weights that let each distillation loss begin with a share of the student's gradient.

    The student takes some steps by its own losses first, since a head that begins at zero hands no gradient down to the
    backbone. Then on each batch the gradients of the student's own losses and of each distillation loss are taken on
    the student's backbone; their norms give ratios, whose medians over the batches give the weights.

    Args:
        model: A distilled student in which every loss has weight 1 and no ``max_share``. It is changed: throw it away.
        batches: Batches as the data loader gives them.
        shares: Name to the wanted part of the norm of the student's own gradient.
        optimizer: Takes the first steps.
        steps: Number of these steps.
        count: Number of batches that are measured.

    Raises:
        ValueError: No batch has finite gradients, or there are no batches.

    Source: this project.
    """
    model.train()
    stream = _counted(batches, steps + count)
    sizes = [_step(model, data, optimizer) for data in islice(stream, steps)]
    parameters = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
    rows = [_gradients(model, data, parameters) for data in islice(stream, count)]
    sizes += [row.pop('size') for row in rows]
    rows = [row for row in rows if _is_finite(row['student']) and row['student'][1] > 0]
    if not rows:
        raise ValueError(
            'calibration found no batch with a finite gradient of the student: lower optim_wrapper.optimizer.lr, or '
            'write default weights with --no-calibration'
        )
    for name in shares:
        rows = [row for row in rows if _is_finite(row[name])]
        if not rows:
            raise ValueError(
                f'calibration found no batch in which losses.{name} and its gradient are finite: leave this loss out, '
                'or write default weights with --no-calibration'
            )
    weights = {
        name: _weight(share, [row[name][1] / row['student'][1] for row in rows]) for name, share in shares.items()
    }
    gradients = {name: weights[name] * median(row[name][1] / row['student'][1] for row in rows) for name in shares}
    parts = {name: median(_part(name, row, weights) for row in rows) for name in shares}
    on = f'{len(rows)} batches of {max(sizes)} training images, after {steps} steps of the student alone'
    return Measured(weights, gradients, parts, on)


def _is_finite(pair: tuple[float, float]) -> bool:
    return all(map(math.isfinite, pair))


def _counted(batches: Iterable[dict], total: int) -> Iterator[dict]:
    """The batches. Some hosts' preprocessors and heads ask MMEngine's message hub how far the training is."""
    hub = MessageHub.get_current_instance()
    for number, batch in enumerate(batches):
        hub.update_info_dict(dict(iter=number, epoch=0, max_iters=total, max_epochs=1))
        yield batch


def _step(model: nn.Module, batch: dict, optimizer: OptimWrapper) -> int:
    losses, size = _losses(model, batch)
    total, _ = model.parse_losses(_own(losses))
    optimizer.update_params(total)
    return size


def _gradients(model: nn.Module, batch: dict, parameters: Sequence[nn.Parameter]) -> dict[str, Any]:
    """Value and norm of the gradient of each distillation loss by name, and of 'student'; and the batch's 'size'."""
    losses, size = _losses(model, batch)
    total, _ = model.parse_losses(_own(losses))
    terms = {'student': total, **{entry.name: losses[entry.key] for entry in model.distiller.entries}}
    row: dict[str, Any] = dict(size=size)
    for name, loss in terms.items():
        model.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)  # not autograd.grad, which reentrant checkpointing refuses
        norms = [parameter.grad.float().norm() for parameter in parameters if parameter.grad is not None]
        row[name] = float(loss.detach()), float(torch.stack(norms).norm()) if norms else 0.0
    model.zero_grad(set_to_none=True)
    return row


def _losses(model: nn.Module, batch: dict) -> tuple[dict[str, Any], int]:
    data = model.data_preprocessor(batch, True)
    return model(**data, mode='loss'), len(data['inputs'])


def _own(losses: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in losses.items() if not name.startswith('distiller.')}


def _weight(share: float, ratios: Sequence[float]) -> float:
    """The weight that brings the median ratio to the share, to two digits. Batches without a gradient do not count."""
    ratio = median([each for each in ratios if each > 0] or [0.0])
    return float(f'{min(share / ratio, LARGEST) if ratio > 0 else LARGEST:.2g}')


def _part(name: str, row: dict[str, Any], weights: dict[str, float]) -> float:
    values = {other: weight * row[other][0] for other, weight in weights.items()}
    return values[name] / (abs(row['student'][0]) + sum(values.values()))


def training_batches(config: Config) -> Iterator[dict]:
    """Batches of a config's training data, without end, read in this process; smaller ones where there is no GPU."""
    loader = copy.deepcopy(config.train_dataloader)
    loader.update(num_workers=0, persistent_workers=False)
    for field in ('prefetch_factor', 'timeout'):
        loader.pop(field, None)
    if not torch.cuda.is_available() and loader.get('batch_size'):
        loader.batch_size = min(loader.batch_size, CPU_BATCH)
    built = Runner.build_dataloader(loader, seed=0)
    while True:
        empty = True
        for batch in built:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                f'train_dataloader gives no batch of {loader.get("batch_size")} images from {len(built.dataset)}: see '
                'its data, batch_size and drop_last, or write default weights with --no-calibration'
            )


def first_optimizer(model: nn.Module, config: Config) -> OptimWrapper:
    """The config's optimizer for the first steps, in full precision, with its gradients held to norm 1 at most."""
    wrapper = copy.deepcopy(config.optim_wrapper)
    for field in ('loss_scale', 'dtype', 'accumulative_counts', 'use_fp16'):
        wrapper.pop(field, None)
    wrapper.update(type='OptimWrapper', clip_grad=wrapper.get('clip_grad') or dict(max_norm=1.0))
    return build_optim_wrapper(model, wrapper)
