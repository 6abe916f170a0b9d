"""What MMEngine lets pass with a warning, or stumbles over hours later, refused before training begins."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.logging import print_log
from torch import nn
from torch.utils.data import Dataset

from mmlckd.checkpoints import lock_folder, misfit, unlock_folders, weights_of
from mmlckd.distillers import entries_of
from mmlckd.registry import HOOKS
from mmlckd.unwrapped import unwrapped

from .optimizer_state import changed_settings, optimizer_misfit, schedulers_misfit
from .resumed_fields import field_fault


@HOOKS.register_module()
class RunCheckHook(Hook):
    """Refuse a run that would go wrong later, or go on from something else than it is given.

    - Data without samples, heads for another number of classes, and metrics that ``save_best`` or EarlyStoppingHook
      watch and that evaluation does not give.
    - A checkpoint to resume from that is of another network, optimizer or schedule, or has a field of a wrong kind;
      MMEngine would only warn, and go on from something else. One given as ``load_from`` may lack weights and bring
      others, as finetuning with a new head does; MMEngine's warning lists them. It must share at least one.
    - A work folder in which another training is at work.

    Raises:
        ValueError: One of these; the message says which.

    Source: this project.
    """

    priority = 'VERY_HIGH'  # before EMAHook, which loads from the same checkpoint

    def before_train(self, runner) -> None:
        if is_main_process():
            lock_folder(runner.work_dir)
        _check_ranks(runner)
        model = unwrapped(runner.model)
        for field, loop in (('train_dataloader', runner.train_loop), ('val_dataloader', runner.val_loop)):
            if loop is not None:
                for name, dataset in _inner_datasets(f'{field}.dataset', loop.dataloader.dataset):
                    _check_data(name, dataset, model)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        source, model = runner.cfg.get('load_from'), unwrapped(runner.model)
        expected, weights = model.state_dict(), weights_of(checkpoint, source)
        if not runner.cfg.get('resume'):
            if not set(expected) & set(weights):
                raise ValueError(
                    f'load_from is {source!r}, which does not fit {type(model).__name__}: {misfit(expected, weights)}'
                )
            return
        lacking = [part for part in ('meta', 'message_hub', 'optimizer') if part not in checkpoint]
        if lacking:
            raise ValueError(
                f'--resume is given {source!r}, which has no {", ".join(lacking)} to go on from: '
                f'start a new training from it with --cfg-options load_from={source}'
            )
        fault = field_fault(checkpoint)
        if fault:
            raise ValueError(f'--resume is given {source!r}, which was not written by a training: {fault}')
        fault = misfit(expected, weights) or optimizer_misfit(runner.optim_wrapper, checkpoint['optimizer'])
        if fault is None and 'param_schedulers' in checkpoint:
            fault = schedulers_misfit(runner.param_schedulers, checkpoint['param_schedulers'])
        if fault is None and 'ema_state_dict' in checkpoint:
            fault = _averages_misfit(expected, checkpoint['ema_state_dict'])
        if fault:
            raise ValueError(f'--resume is given {source!r}, which does not fit this config: {fault}')
        _name_changes(runner, checkpoint)
        _forget_losses(checkpoint['message_hub'].get('log_scalars', {}), model)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        for hook in runner.hooks:
            if isinstance(hook, EarlyStoppingHook):
                _check_metrics(f'{type(hook).__name__}.monitor', [hook.monitor], metrics)
            if isinstance(hook, CheckpointHook):
                _check_metrics('default_hooks.checkpoint.save_best', hook.save_best or (), metrics)

    def after_run(self, runner) -> None:
        unlock_folders()


def _check_ranks(runner) -> None:
    """See that all processes begin at the same place: each looks for the checkpoint to resume from by itself."""
    places = all_gather_object((runner.epoch, runner.iter))
    if len(set(places)) > 1:
        found = ', '.join(f'rank {rank} at iteration {place[1]}' for rank, place in enumerate(places))
        raise ValueError(
            f'the processes do not begin at the same place ({found}): let all of them see the work_dir '
            f'{runner.work_dir!r}, on a file system that the machines share, or name one checkpoint behind --resume'
        )


def _name_changes(runner, checkpoint: dict) -> None:
    """Say which settings of the config a resumed run does not take."""
    changed = changed_settings(runner.optim_wrapper, runner.param_schedulers, checkpoint)
    if changed:
        print_log(
            f'optimizer and schedules go on as the checkpoint has them: {"; ".join(changed)}. What the config sets now '
            'is not used. To use it, begin a training with load_from, without --resume',
            'current',
            logging.WARNING,
        )


def _check_metrics(field: str, names, metrics: dict | None) -> None:
    for name in names:
        if name != 'auto' and name not in (metrics or {}):
            given = ', '.join(metrics or {}) or 'nothing'
            raise ValueError(f'{field} is {name!r}, and evaluation gives {given}: choose of these')


def _averages_misfit(expected: dict, saved: dict) -> str | None:
    """How averaged weights, which EMAHook saves under ``module.``, differ from the network's."""
    averages = {key.removeprefix('module.'): value for key, value in saved.items() if key.startswith('module.')}
    fault = misfit({key: expected[key] for key in averages if key in expected}, averages)
    return f'of its averaged weights (ema_state_dict) {fault}' if fault else None


def _forget_losses(logged: dict, model: nn.Module) -> None:
    """Take distillation losses that the config has no longer out of the log: their last values would stay in it."""
    present = {entry.key for entry in entries_of(model)}
    for key in [key for key in logged if key.startswith('train/distiller.loss_')]:
        if key.removeprefix('train/') not in present:
            del logged[key]


def _inner_datasets(field: str, dataset: Any) -> Iterator[tuple[str, Dataset]]:
    """The data sets inside wrappers, MMEngine's, a host's or torch's, with the fields that made them."""
    if hasattr(dataset, 'datasets'):
        for i, inner in enumerate(dataset.datasets):
            yield from _inner_datasets(f'{field}.datasets.{i}', inner)
    elif isinstance(getattr(dataset, 'dataset', None), Dataset):
        yield from _inner_datasets(f'{field}.dataset', dataset.dataset)
    else:
        yield field, dataset


def _check_data(field: str, dataset: Any, model: nn.Module) -> None:
    if len(dataset) == 0:
        raise ValueError(f'{field} has no samples: see that its ann_file and data_prefix name some')
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    labels: np.ndarray = np.array(())
    if classes is None and hasattr(dataset, 'get_gt_labels'):  # mmpretrain's
        labels = dataset.get_gt_labels()
    highest = int(labels.max()) if labels.ndim == 1 and labels.size and labels.dtype.kind in 'iu' else -1
    for name, count in _heads(model):
        if classes is not None and count != len(classes):
            raise ValueError(
                f'{field} has {len(classes)} classes and {name}.num_classes is {count}: give both the same number'
            )
        if highest >= count:
            raise ValueError(
                f'{field} has labels up to {highest} and {name}.num_classes is {count}: {highest + 1} are needed'
            )


def _heads(model: nn.Module) -> Iterator[tuple[str, int]]:
    """The classifying heads, with their numbers of classes. A region proposal network's only finds objects."""
    for name, module in model.named_modules():
        count = getattr(module, 'num_classes', None)
        if name.endswith('head') and not name.endswith('rpn_head') and isinstance(count, int) and count > 0:
            yield name, count
