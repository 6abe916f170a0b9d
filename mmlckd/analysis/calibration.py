"""How well a classifier's probabilities fit its accuracy."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy, in points, over bins of equal width in confidence.

    Args:
        logits: (N, K).
        labels: (N,), class numbers.
        bins: How many.

    Returns:
        0 for probabilities that hold in every bin, 100 at most; NaN if a logit is NaN. Not differentiable.

    Source: Guo et al., On calibration of modern neural networks (ICML 2017), equation 3, with its 15 bins.
    """
    confidence, predicted = logits.detach().double().softmax(1).max(1)
    if confidence.isnan().any():
        return math.nan
    surplus = confidence - (predicted == labels).double()
    numbers = (confidence * bins).long().clamp(max=bins - 1)
    sums = torch.zeros(bins, dtype=surplus.dtype, device=surplus.device).index_add_(0, numbers, surplus)
    return 100 * sums.abs().sum().item() / len(labels)
