"""How outputs change between two views of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def output_change(outputs: Tensor, center: bool = False) -> Tensor:
    """The change of an output from the first view of each image to the second.

    Args:
        outputs: (2B, K), (2B, K, H, W) or tokens (2B, N, K): first B outputs of the first view, then B of the second.
        center: Subtract from each change its mean over the K channels, so that a shift of all of them counts as none.

    Returns:
        (B, K), (B, K, H, W) or (B, N, K), float32 or wider. Differentiable.

    Raises:
        ValueError: The batch is odd.

    Source: this project.
    """
    if len(outputs) % 2:
        raise ValueError(f'the outputs are {tuple(outputs.shape)}: two views of one batch are an even number of images')
    first, second = outputs.to(torch.promote_types(outputs.dtype, torch.float32)).tensor_split(2)
    change = second - first
    return change - change.mean(_channel_dim(change), keepdim=True) if center else change


def relative_change_error(student: Tensor, teacher: Tensor, floor: float = 1.0) -> Tensor:
    """Squared distance of two changes, relative to the teacher's.

        mean over positions of |student - teacher|^2 / (|teacher|^2 + floor), norms over channels

    Args:
        student: (B, K), (B, K, H, W) or tokens (B, N, K). Differentiable.
        teacher: The same shape. Not differentiable: its changes are the measure.
        floor: Positive, in squared output units.

    Returns:
        (B,), of the dtype of the inputs.

    Source: this project; in the limit of small changes it is Jacobian matching (Srinivas and Fleuret, ICML 2018) along
    one direction an image.
    """
    dim, teacher = _channel_dim(teacher), teacher.detach()
    error = (student - teacher).square().sum(dim, keepdim=True)
    scale = teacher.square().sum(dim, keepdim=True) + floor
    return (error / scale).flatten(1).mean(1)


def _channel_dim(tensor: Tensor) -> int:
    return 2 if tensor.dim() == 3 else 1
