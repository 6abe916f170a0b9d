"""Teacher and student with different image preprocessing on one batch."""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .hosts import host_of
from .padding import image_area, is_padded


class Preprocessing(NamedTuple):
    """What a data preprocessor does to pixel values: channels flipped, then (x - mean) / std.

    ``mean`` and ``std`` are (C,) or (1,), on the CPU, or None where nothing is normalised.
    """

    flip: bool
    mean: Tensor | None
    std: Tensor | None

    @classmethod
    def of(cls, module: nn.Module) -> Preprocessing:
        module = _inner(module)
        flip = any(getattr(module, name, False) for name in ('to_rgb', '_channel_conversion', 'channel_conversion'))
        if not getattr(module, '_enable_normalize', False):
            return cls(flip, None, None)
        return cls(flip, module.mean.flatten().cpu(), module.std.flatten().cpu())

    def affine(self, channels: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (channels,) each; 0 and 1 where nothing is normalised."""
        mean = torch.zeros(1) if self.mean is None else self.mean
        std = torch.ones(1) if self.std is None else self.std
        return mean.expand(channels), std.expand(channels)

    def __str__(self) -> str:
        mean, std = ('none' if value is None else _numbers(value) for value in (self.mean, self.std))
        return f'mean={mean}, std={std}, channels {"flipped" if self.flip else "as read"}'


class InputAdapter:
    """Turn a batch preprocessed for the student into the batch that the teacher's own preprocessor would have made.

    Both preprocessors are affine in the pixels, so the change is affine too, up to rounding. Batch augmentations have
    happened by then, so the teacher sees the same pixels: random resizes, Mixup and CutMix are linear in the images.
    Padded borders, which the samples' ``img_shape`` tells, get the value that the teacher's preprocessor pads with.
    Where a padded batch is resized, the last row or column of an image may hold part of the student's padding.

    A gray image is repeated to the teacher's channels, and a colour image is averaged over its channels for a gray
    teacher. Where both preprocess alike, the batch is handed on as it is.

    Args:
        student, teacher: The two data preprocessors.
        channels: Channels of the student's images and of the teacher's.

    Raises:
        ValueError: Both have several channels and not as many. In training: images were padded and then mixed by one of
            mmpretrain's batch augmentations, and the two preprocess differently.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, channels: tuple[int, int] = (3, 3)):
        ours, theirs = Preprocessing.of(student), Preprocessing.of(teacher)
        self.channels = channels
        if channels[0] != channels[1]:
            self._check_channels()
        self.flip = ours.flip != theirs.flip and min(channels) > 1
        (mean, std), (their_mean, their_std) = (side.affine(max(channels)) for side in (ours, theirs))
        if self.flip:
            mean, std = mean.flip(0), std.flip(0)
        self.padding = _padding(teacher)
        self.mixes = host_of(student) == 'mmpretrain' and getattr(student, 'batch_augments', None) is not None
        self.scale = self.shift = None
        if self.flip or not torch.equal(mean, their_mean) or not torch.equal(std, their_std):
            self.scale, self.shift = ((value / their_std).view(-1, 1, 1) for value in (std, mean - their_mean))
            message = f'the batch is translated for the teacher: it expects {theirs}, and the student {ours}'
            print_log(message, 'current', logging.INFO)
        self.pads_alike = self.scale is None and _padding(student) == self.padding

    def _check_channels(self) -> None:
        ours, theirs = self.channels
        if min(ours, theirs) > 1:
            raise ValueError(
                f"the student's images have {ours} channels and the teacher's {theirs}: only one channel can be "
                'repeated, or several averaged to one, so give both networks images of one kind'
            )
        what = f'repeated to {theirs} channels' if ours == 1 else f'averaged over their {ours} channels'
        print_log(f"the student's images are {what} for the teacher", 'current', logging.INFO)

    def __call__(self, inputs: Tensor, data_samples: list | None) -> Tensor:
        """(B, C, H, W) for the student to (B, C', H, W) for the teacher."""
        ours, theirs = self.channels
        padded = not self.pads_alike and is_padded(inputs, data_samples)
        if padded and self.mixes:
            raise ValueError(
                'images of different sizes were padded and then mixed by data_preprocessor.batch_augments, and teacher '
                'and student preprocess differently: give all images one size, or both models the same '
                'data_preprocessor'
            )
        area = image_area(inputs, data_samples) if padded else None
        if theirs > ours:
            inputs = inputs.expand(-1, theirs, -1, -1)
        if self.scale is not None and self.shift is not None:
            self.scale, self.shift = self.scale.to(inputs), self.shift.to(inputs)  # copied to the device once
            inputs = (inputs.flip(1) if self.flip else inputs) * self.scale + self.shift
        if ours > theirs:
            inputs = inputs.mean(1, keepdim=True)
        return inputs if area is None else inputs.where(area, self.padding)


def _inner(module: nn.Module) -> nn.Module:
    """The preprocessor of images: mmdet's for several branches wraps it."""
    return getattr(module, 'data_preprocessor', module)


def _padding(module: nn.Module) -> float:
    """The value of padded positions; hosts pad after they normalise."""
    return float(getattr(_inner(module), 'pad_value', 0.0))


def _numbers(values: Tensor) -> str:
    """Every digit that float32 has, so that values that differ look different."""
    return f'[{", ".join(f"{value:.7g}" for value in values.tolist())}]'
