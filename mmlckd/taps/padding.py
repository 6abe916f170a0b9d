"""Which part of a padded batch is image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def is_padded(inputs: Tensor, data_samples: Sequence | None) -> bool:
    """Whether any image of a batch (B, C, H, W) is smaller than H x W, as its sample's ``img_shape`` tells."""
    return any(size != tuple(inputs.shape[2:]) for size in _sizes(inputs, data_samples))


def image_area(inputs: Tensor, data_samples: Sequence | None) -> Tensor:
    """(B, 1, H, W), bool: which positions of (B, C, H, W) are image; hosts pad at the bottom and on the right."""
    sizes = torch.tensor(_sizes(inputs, data_samples), device=inputs.device)
    rows, columns = (torch.arange(length, device=inputs.device) for length in inputs.shape[2:])
    inside = (rows < sizes[:, :1]).unsqueeze(2) & (columns < sizes[:, 1:]).unsqueeze(1)
    return inside.unsqueeze(1)


def _sizes(inputs: Tensor, data_samples: Sequence | None) -> list[tuple[int, int]]:
    """(height, width) of each image; that of the batch where its sample does not tell, as a plain label does not."""
    height, width = inputs.shape[2:]
    sizes = []
    for sample in data_samples if isinstance(data_samples, (list, tuple)) else ():
        shape = sample.get('img_shape', None) if hasattr(sample, 'get') else None
        sizes.append((int(shape[0]), int(shape[1])) if shape else (height, width))
    return sizes or [(height, width)] * len(inputs)
