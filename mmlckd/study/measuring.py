"""What a study reads off a trained student."""

from __future__ import annotations

import statistics

import torch
from mmengine.runner import Runner

from mmlckd.analysis.evaluating import evaluating
from mmlckd.analysis.local_lipschitz import local_lipschitz
from mmlckd.analysis.pixels import pixel_view
from mmlckd.analysis.robustness import robust_accuracy

# The name of each task's result, and its factor to per cent.
RESULTS = {'accuracy/top1': 1.0, 'pascal_voc/mAP': 100.0, 'coco/bbox_mAP': 100.0, 'mIoU': 1.0}
SIGMAS, EPSILONS = (32.0, 64.0), (8.0,)  # pixel values
POINTS = 50  # test images at which the local Lipschitz constant is taken


def result_of(metrics: dict[str, float]) -> float:
    """The number a study compares, in per cent.

    Raises:
        ValueError: The evaluator gives no result of a name that is known.
    """
    for name, factor in RESULTS.items():
        if name in metrics:
            return round(factor * float(metrics[name]), 4)
    raise ValueError(f'the evaluation gives {", ".join(metrics)}: a study compares one of {", ".join(RESULTS)}')


def measure(runner: Runner) -> dict[str, float]:
    """The test result. A classifier has also its training result, accuracy under noise and FGSM, and local constant."""
    result = dict(test=result_of(runner.test()))
    if runner.cfg.get('default_scope') == 'mmpretrain':
        result.update(train=_train_accuracy(runner), **_robustness(runner))
    return result


def hub(runner: Runner, name: str) -> list[float]:
    """Every value that was logged under a name."""
    return runner.message_hub.get_scalar(name).data[0].tolist()


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


def _robustness(runner: Runner) -> dict[str, float]:
    with evaluating(runner.model):
        view = pixel_view(runner.model, list(runner.test_dataloader))
        if view.labels is None:
            raise ValueError('a test image has not one label: a study measures classifiers with one label an image')
        batches = list(zip(view.images, view.labels))
        accuracies = robust_accuracy(view.function, batches, SIGMAS, EPSILONS, attacks=('fgsm',))
        images = torch.cat(view.images)
        step = max(1, len(images) // POINTS)
        local = local_lipschitz(view.function, images[::step][:POINTS])
    return {
        **{f'noise {sigma:g}': value for sigma, value in zip(SIGMAS, accuracies['noise'])},
        **{f'FGSM {epsilon:g}': value for epsilon, value in zip(EPSILONS, accuracies['fgsm'])},
        'local constant': local.mean().item(),
    }
