"""What MMEngine lets pass with a warning, or stumbles over hours later, refused before training begins."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from mmengine.hooks import CheckpointHook, Hook
from torch import nn
from torch.utils.data import Dataset

from mmlckd.checkpoints import misfit, weights_of
from mmlckd.registry import HOOKS
from mmlckd.unwrapped import unwrapped


@HOOKS.register_module()
class RunCheckHook(Hook):
    """Refuse data without samples, heads for another number of classes, a metric that is not there, and a checkpoint of another run.

    A checkpoint that training resumes from must be of the same network, to the last key, and of the same optimizer; MMEngine would
    only warn, and go on from something else. One given as ``load_from`` may lack weights and bring others, as finetuning with a new
    head does, of which MMEngine's warning lists the names; it must share at least one.

    Raises:
        ValueError: One of these; the message says which.

    Source: this project.
    """

    priority = 'VERY_HIGH'  # before EMAHook, which loads from the same checkpoint

    def before_train(self, runner) -> None:
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
        fault = misfit(expected, weights) or _optimizer_misfit(runner.optim_wrapper, checkpoint['optimizer'])
        if fault:
            raise ValueError(f'--resume is given {source!r}, which does not fit this config: {fault}')

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        for hook in runner.hooks:
            for name in (hook.save_best or ()) if isinstance(hook, CheckpointHook) else ():
                if name != 'auto' and name not in metrics:
                    raise ValueError(
                        f'default_hooks.checkpoint.save_best is {name!r}, and evaluation gives {", ".join(metrics)}: '
                        'choose of these'
                    )


def _optimizer_misfit(optim_wrapper, saved: dict) -> str | None:
    """How the saved state differs from a single optimizer's."""
    if not hasattr(optim_wrapper, 'optimizer') or 'param_groups' not in saved:
        return None
    sizes, theirs = (
        [len(group['params']) for group in groups] for groups in (optim_wrapper.param_groups, saved['param_groups'])
    )
    # torch fills in flags that an older version did not save, but no numbers
    needed = {
        name for name, value in optim_wrapper.optimizer.defaults.items() if not isinstance(value, (bool, type(None)))
    }
    absent = sorted(needed - set(saved['param_groups'][0]))
    if sizes == theirs and not absent:
        return None
    found = f'lacks {", ".join(absent)}' if absent else f'has parameter groups of {theirs} tensors for {sizes}'
    return f"its optimizer's state {found}: resume with the optim_wrapper that wrote it"


def _inner_datasets(field: str, dataset: Dataset) -> Iterator[tuple[str, Dataset]]:
    """The data sets inside wrappers, MMEngine's, a host's or torch's, with the fields that made them."""
    if hasattr(dataset, 'datasets'):
        for i, inner in enumerate(dataset.datasets):
            yield from _inner_datasets(f'{field}.datasets.{i}', inner)
    elif isinstance(getattr(dataset, 'dataset', None), Dataset):
        yield from _inner_datasets(f'{field}.dataset', dataset.dataset)
    else:
        yield field, dataset


def _check_data(field: str, dataset: Dataset, model: nn.Module) -> None:
    if len(dataset) == 0:
        raise ValueError(f'{field} has no samples: see that its ann_file and data_prefix name some')
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    labels = (
        dataset.get_gt_labels() if classes is None and hasattr(dataset, 'get_gt_labels') else np.array(())
    )  # mmpretrain's
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
    """The classifying heads, with their numbers of classes; a region proposal network's only tells objects from ground."""
    for name, module in model.named_modules():
        count = getattr(module, 'num_classes', None)
        if name.endswith('head') and not name.endswith('rpn_head') and isinstance(count, int) and count > 0:
            yield name, count
