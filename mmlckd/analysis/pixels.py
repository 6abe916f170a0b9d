"""A network as a function of pixel values."""

from __future__ import annotations

from typing import Callable, NamedTuple

import torch
from torch import Tensor, nn

from mmlckd.taps import Preprocessing


class PixelView(NamedTuple):
    """What :func:`pixel_view` gives.

    Attributes:
        function: Maps images (B, C, H, W) of pixel values, 0 to 255, to logits or to the backbone's last map.
        images: The batches, in these units.
        labels: Their labels; None where an image does not have exactly one.
        part: The network that is run.
        classifier: Whether it gives logits.
        std: What pixels are divided by, (C, 1, 1) or (1, 1, 1).
    """

    function: Callable[[Tensor], Tensor]
    images: list[Tensor]
    labels: list[Tensor] | None
    part: nn.Module
    classifier: bool
    std: Tensor


def pixel_view(model: nn.Module, batches: list[dict]) -> PixelView:
    """A network of OpenMMLab and what its test data loader yields, in pixel values.

    For detectors and segmentors, and for classifiers whose output is not one tensor of logits, it is the backbone.

    Args:
        model: The network, in evaluation mode.
        batches: What its test data loader yields.

    Raises:
        ValueError: The images are no pixel values from 0 to 255 before the model's preprocessor normalises them.

    Source: this project.
    """
    prepared = [model.data_preprocessor(batch, False) for batch in batches]
    first = prepared[0]['inputs'][:1].float()
    classifier = _is_classifier(model, first)
    preprocessing = Preprocessing.of(model.data_preprocessor)
    mean, std = _per_channel(preprocessing.mean, 0.0, first), _per_channel(preprocessing.std, 1.0, first)

    def function(pixels: Tensor) -> Tensor:
        x = (pixels - mean) / std
        output = model(x, mode='tensor') if classifier else model.backbone(x)
        while not isinstance(output, Tensor):
            output = output[-1]
        return output

    images = [data['inputs'].float() * std + mean for data in prepared]
    _refuse_other_units(images)
    return PixelView(
        function=function,
        images=images,
        labels=_labels(prepared) if classifier else None,
        part=model if classifier else model.backbone,
        classifier=classifier,
        std=std,
    )


def _refuse_other_units(images: list[Tensor]) -> None:
    low, high = min(float(batch.min()) for batch in images), max(float(batch.max()) for batch in images)
    parts = high <= 1.5 and any((batch - batch.round()).abs().max() > 0.01 for batch in images)
    if low < -1 or high > 256 or parts:
        raise ValueError(
            f'the test images have values from {low:.3g} to {high:.3g}, and pixel values from 0 to 255 are needed: let '
            "the model's data_preprocessor normalise them (mean, std), and not the pipeline"
        )


def _per_channel(values: Tensor | None, default: float, like: Tensor) -> Tensor:
    """Normalisation values as (C, 1, 1), or the default as (1, 1, 1)."""
    if values is None:
        return like.new_full((1, 1, 1), default)
    return values.to(like).view(-1, 1, 1)


def _labels(prepared: list[dict]) -> list[Tensor] | None:
    """The labels of each batch, None where an image does not have exactly one."""
    batches = []
    for data in prepared:
        labels = [sample.get('gt_label') for sample in data['data_samples']]
        if any(label is None or label.numel() != 1 for label in labels):
            return None
        batches.append(torch.cat(labels))
    return batches


def _is_classifier(model: nn.Module, image: Tensor) -> bool:
    """Whether it is an image classifier with one tensor of logits; by name, so that mmpretrain need not be imported."""
    if 'BaseClassifier' not in (kind.__name__ for kind in type(model).__mro__):
        return False
    with torch.no_grad():
        return isinstance(model(image, mode='tensor'), Tensor)
