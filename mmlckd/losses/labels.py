"""The labels of a batch, for losses that look at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_NEED = 'this loss needs one class a sample'


def labels_of(data_samples: Tensor | Sequence | None) -> Tensor:
    """(B,): the class of each sample.

    Args:
        data_samples: Integers (B,), or data samples with a ``gt_label`` of one number each. A ``gt_score`` beside it,
            or in its place, must be one-hot: Mixup and CutMix mix the scores and leave the first images' labels.

    Raises:
        ValueError: There are no labels, several for one sample, or mixed ones.
    """
    if data_samples is None:
        raise ValueError(f'the batch has no data samples and {_NEED}: take LogitsKDLoss, which needs no labels')
    if isinstance(data_samples, Tensor):
        if data_samples.dim() != 1 or data_samples.is_floating_point():
            raise ValueError(f'the labels are {tuple(data_samples.shape)} of {data_samples.dtype}: give integers (B,)')
        return data_samples
    scores = [sample.gt_score for sample in data_samples if getattr(sample, 'gt_score', None) is not None]
    if scores and torch.stack(scores).amax(1).min() < 1 - 1e-6:
        raise ValueError(
            f'the batch has mixed labels (gt_score, as Mixup and CutMix make it) and {_NEED}: '
            'remove these batch augmentations, or take LogitsKDLoss'
        )
    labels = [_label_of(sample, i) for i, sample in enumerate(data_samples)]
    return torch.cat(labels) if labels else torch.zeros(0, dtype=torch.long)


def _label_of(sample: Any, index: int) -> Tensor:
    label, score = getattr(sample, 'gt_label', None), getattr(sample, 'gt_score', None)
    if label is None:
        if score is None:
            raise ValueError(f'sample {index} has no gt_label and {_NEED}: take LogitsKDLoss, which needs no labels')
        return score.argmax().view(1)
    if label.numel() != 1:
        raise ValueError(
            f"sample {index} has {label.numel()} labels and {_NEED}: take LogitsKDLoss(activation='sigmoid')"
        )
    return label.view(1)
