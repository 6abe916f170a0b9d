"""What a study reads off a trained student."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from torch import nn

from mmlckd.analysis.calibration import expected_calibration_error
from mmlckd.analysis.evaluating import evaluating
from mmlckd.analysis.local_lipschitz import local_lipschitz
from mmlckd.analysis.pixels import pixel_view
from mmlckd.analysis.robustness import CHANGES, robust_accuracy
from mmlckd.taps import Preprocessing

# The name of each task's result, and its factor to per cent.
RESULTS = {'accuracy/top1': 1.0, 'pascal_voc/mAP': 100.0, 'coco/bbox_mAP': 100.0, 'mIoU': 1.0}
Changes = Mapping[str, Sequence[float]]
# What is done to test images, and how strongly: see mmlckd.analysis.robust_accuracy.
CLASSIFIED: Changes = dict(
    noise=(16.0, 32.0, 64.0), blur=(0.5, 1.0, 2.0), contrast=(0.5, 0.25, 0.1), fgsm=(2.0, 4.0, 8.0), pgd=(2.0, 4.0, 8.0)
)
DENSE: Changes = dict(noise=(32.0,), blur=(2.0,))
# How many test images are changed, how many of them suffer PGD, and how many have their local constant taken.
CHANGED, ATTACKED, POINTS = 1000, 100, 50
TITLES = dict(fgsm='FGSM', pgd='PGD')


def result_of(metrics: dict[str, float]) -> float:
    """The number a study compares, in per cent.

    Raises:
        ValueError: The evaluator gives no result of a name that is known.
    """
    for name, factor in RESULTS.items():
        if name in metrics:
            return round(factor * float(metrics[name]), 4)
    raise ValueError(f'the evaluation gives {", ".join(metrics)}: a study compares one of {", ".join(RESULTS)}')


def measure(runner: Runner, changes: Changes | None = None) -> dict[str, float]:
    """The test result, clean and on changed images.

    A classifier has also its training result, log loss, calibration error and local constant.

    Args:
        runner: Has the trained model and the data.
        changes: What is done to the images, kind to strengths; without it, all that a study reports of the task.
    """
    _take_averages(runner)
    if runner.cfg.get('default_scope') == 'mmpretrain':
        with evaluating(runner.model):
            return {**_classified(runner, changes or CLASSIFIED), 'train': _train_accuracy(runner)}
    result = dict(test=result_of(runner.test()))
    for kind, strengths in (changes or DENSE).items():
        for strength in strengths:
            with _changed_inputs(runner.model.data_preprocessor, kind, strength):
                result[f'{kind} {strength:g}'] = result_of(runner.test())
    return result


def _take_averages(runner: Runner) -> None:
    """Where weights are averaged over training (EMAHook), put the averages in, which the validation was of, too.

    A test after a training in the same runner would begin new averages at the last weights.
    """
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            averages = hook.ema_model.module.state_dict()
            hook.src_model.load_state_dict({name: value.clone() for name, value in averages.items()})


def hub(runner: Runner, name: str) -> list[float]:
    """Every value that was logged under a name."""
    return runner.message_hub.get_scalar(name).data[0].tolist()


def steps(runner: Runner) -> dict[str, float]:
    """How many training steps there were, those before a resume included, and their median time in ms."""
    times = hub(runner, 'train/time')
    return dict(steps=len(times), step_ms=round(1000 * statistics.median(times), 2))


def curves(runner: Runner) -> dict[str, list[float]]:
    """Over training: the validation result at every evaluation, in per cent, and the mean loss of each epoch.

    A run that counts iterations is cut into 50 parts in place of epochs.
    """
    name = next(name for name in RESULTS if f'val/{name}' in runner.message_hub.log_scalars)
    losses = hub(runner, 'train/loss')
    length = len(runner.train_dataloader)
    if runner.cfg.train_cfg.get('by_epoch') is False or 'max_iters' in runner.cfg.train_cfg:
        length = max(1, len(losses) // 50)
    return dict(
        validation=[result_of({name: value}) for value in hub(runner, f'val/{name}')],
        loss=[round(statistics.fmean(losses[k : k + length]), 4) for k in range(0, len(losses), length)],
    )


def _train_accuracy(runner: Runner) -> float:
    """Accuracy on the training images, without augmentation, as on the test images."""
    config = runner.cfg.test_dataloader.copy()
    config.dataset = {**runner.cfg.train_dataloader.dataset, 'pipeline': config.dataset.pipeline}
    samples = [sample for batch in Runner.build_dataloader(config) for sample in runner.model.test_step(batch)]
    return 100 * statistics.fmean(float(sample.pred_label == sample.gt_label) for sample in samples)


def _classified(runner: Runner, changes: Changes) -> dict[str, float]:
    """What is measured of a classifier on the test images, as a function of pixel values.

    Its test result too, since the images are read and run but once.
    """
    view = pixel_view(runner.model, list(runner.test_dataloader))
    if view.labels is None:
        raise ValueError('a test image has not one label: a study measures classifiers with one label an image')
    images, labels = torch.cat(view.images), torch.cat(view.labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))  # test files may go by class

    def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(images[part], labels[part]) for part in order[:count].split(len(view.images[0]))]

    many, few = ({kind: changes[kind] for kind in changes if (kind == 'pgd') is costly} for costly in (False, True))
    accuracies = robust_accuracy(view.function, batches(CHANGED), many)
    accuracies.update(robust_accuracy(view.function, batches(ATTACKED), few))
    local = local_lipschitz(view.function, images[order[:POINTS]])
    with torch.no_grad():
        logits = torch.cat([view.function(batch) for batch in view.images])
    result = dict(test=round(100 * (logits.argmax(1) == labels).double().mean().item(), 4))
    result |= {
        f'{TITLES.get(kind, kind)} {strength:g}': value
        for kind, values in accuracies.items()
        for strength, value in zip(changes[kind], values)
    }
    result['log loss'] = F.cross_entropy(logits.double(), labels).item()
    result['calibration error'] = expected_calibration_error(logits, labels)
    result['local constant'] = local.mean().item()
    return result


@contextmanager
def _changed_inputs(preprocessor: nn.Module, kind: str, strength: float) -> Iterator[None]:
    """Change the preprocessed images of a model, padding included, as :func:`robust_accuracy` does with a classifier's.

    Every reading has the same noise.
    """
    generator = torch.Generator().manual_seed(0)
    preprocessing = Preprocessing.of(preprocessor)

    def change(module: nn.Module, args: tuple, output: dict) -> dict:
        inputs = output['inputs']
        mean, std = (values.to(inputs).view(-1, 1, 1) for values in preprocessing.affine(inputs.shape[1]))
        pixels = inputs * std + mean
        changed = CHANGES[kind](None, pixels, None, strength, generator)
        return {**output, 'inputs': (changed - mean) / std}

    handle = preprocessor.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()
