"""A network as a function of pixel values."""

from __future__ import annotations

from typing import Callable, NamedTuple

import torch
from torch import Tensor, nn

from mmlckd.taps import Preprocessing


class PixelView(NamedTuple):
    """What :func:`pixel_view` gives.

    ``function`` maps images (B, C, H, W) of pixel values, 0 to 255, to logits or to the backbone's last map; ``images`` are the batches in
    these units and ``labels`` theirs, None where an image has not one label; ``part`` is the network that is run, ``classifier`` whether
    it gives logits, and ``std`` what pixels are divided by, (C, 1, 1) or (1, 1, 1).
    """

    function: Callable[[Tensor], Tensor]
    images: list[Tensor]
    labels: list[Tensor] | None
    part: nn.Module
    classifier: bool
    std: Tensor


def pixel_view(model: nn.Module, batches: list[dict]) -> PixelView:
    """A network of OpenMMLab and what its test data loader yields, in pixel values.

    Of detectors and segmentors, and of classifiers whose output is not one tensor of logits, the backbone is taken. The network is to be in
    evaluation mode.
    """
    prepared = [model.data_preprocessor(batch, False) for batch in batches]
    first = prepared[0]['inputs'][:1].float()
    classifier = _is_classifier(model, first)
    _, mean, std = Preprocessing.of(model.data_preprocessor)
    mean, std = (
        first.new_full((1, 1, 1), default) if value is None else value.to(first).view(-1, 1, 1)
        for value, default in ((mean, 0.0), (std, 1.0))
    )

    def function(pixels: Tensor) -> Tensor:
        x = (pixels - mean) / std
        output = model(x, mode='tensor') if classifier else model.backbone(x)
        while not isinstance(output, Tensor):
            output = output[-1]
        return output

    images = [data['inputs'].float() * std + mean for data in prepared]
    labels = [sample.get('gt_label') for data in prepared for sample in data['data_samples']] if classifier else [None]
    one_each = all(label is not None and label.numel() == 1 for label in labels)
    return PixelView(
        function,
        images,
        list(torch.cat(labels).split([len(batch) for batch in images])) if one_each else None,
        model if classifier else model.backbone,
        classifier,
        std,
    )


def _is_classifier(model: nn.Module, image: Tensor) -> bool:
    """Whether it is an image classifier with one tensor of logits; by name, since a detector's run need not import mmpretrain."""
    if 'BaseClassifier' not in (kind.__name__ for kind in type(model).__mro__):
        return False
    with torch.no_grad():
        return isinstance(model(image, mode='tensor'), Tensor)
