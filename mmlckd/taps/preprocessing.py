"""Teacher and student with different image preprocessing on one batch."""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .hosts import host_of


class Preprocessing(NamedTuple):
    """What a data preprocessor does to pixel values: channels flipped, then (x - mean) / std.

    ``mean`` and ``std`` are (C,) or (1,), on the CPU, or None where nothing is normalised.
    """

    flip: bool
    mean: Tensor | None
    std: Tensor | None

    @classmethod
    def of(cls, module: nn.Module) -> Preprocessing:
        module = getattr(module, 'data_preprocessor', module)  # mmdet's for several branches wraps the real one
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

    Where both preprocess alike this is the identity. Otherwise both are affine in the pixels, so the change is
    affine too, up to rounding. It does not hold in padded borders, so preprocessors that pad are refused. A gray image
    is repeated to the teacher's channels, and a colour image is averaged over its channels for a gray teacher.

    Args:
        student, teacher: The two data preprocessors.
        channels: Channels of the student's images and of the teacher's.

    Raises:
        ValueError: The two differ and either one pads, or both have several channels and not as many.
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
        self.scale = self.shift = None
        if not self.flip and torch.equal(mean, their_mean) and torch.equal(std, their_std):
            return
        _refuse_padding(student, teacher, f'{theirs}; {ours}')
        self.scale, self.shift = ((value / their_std).view(-1, 1, 1) for value in (std, mean - their_mean))

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
        if theirs > ours:
            inputs = inputs.expand(-1, theirs, -1, -1)
        if self.scale is not None:
            inputs = self._translated(inputs, data_samples)
        return inputs.mean(1, keepdim=True) if ours > theirs else inputs

    def _translated(self, inputs: Tensor, data_samples: list | None) -> Tensor:
        for sample in data_samples or ():
            shape = sample.get('img_shape')
            if shape is not None and tuple(shape[:2]) != tuple(inputs.shape[2:]):
                raise ValueError(
                    f'an image of {tuple(shape[:2])} was padded to {tuple(inputs.shape[2:])}, and teacher and student '
                    'preprocess differently: give both models the same data_preprocessor, or all images one size'
                )
        assert self.scale is not None and self.shift is not None
        self.scale, self.shift = self.scale.to(inputs), self.shift.to(inputs)  # copied to the device once
        return (inputs.flip(1) if self.flip else inputs) * self.scale + self.shift


def _refuse_padding(student: nn.Module, teacher: nn.Module, difference: str) -> None:
    for module in (student, teacher):
        if host_of(module) != 'mmpretrain' or (getattr(module, 'pad_size_divisor', None) or 1) > 1:
            raise ValueError(
                f'teacher and student preprocess images differently ({difference}) and {type(module).__name__} pads '
                'them, which cannot be translated: give both models the same data_preprocessor'
            )


def _numbers(values: Tensor) -> str:
    """Every digit that float32 has, so that values that differ look different."""
    return f'[{", ".join(f"{value:.7g}" for value in values.tolist())}]'
