"""Teacher and student with different image preprocessing on one batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Preprocessing(NamedTuple):
    """What a data preprocessor does to pixel values: channels flipped, then (x - mean) / std."""

    flip: bool
    mean: Tensor | None
    std: Tensor | None

    @classmethod
    def of(cls, module: nn.Module) -> Preprocessing:
        flip = any(getattr(module, name, False) for name in ('to_rgb', '_channel_conversion', 'channel_conversion'))
        normalize = getattr(module, '_enable_normalize', False)
        return cls(flip, *((module.mean.flatten().cpu(), module.std.flatten().cpu()) if normalize else (None, None)))

    def __str__(self) -> str:
        mean, std = (
            None if value is None else [round(x, 3) for x in value.tolist()] for value in (self.mean, self.std)
        )
        return f'mean={mean}, std={std}, channels {"flipped" if self.flip else "as read"}'


class InputAdapter:
    """Turn a batch preprocessed for the student into the batch the teacher's own preprocessor would have made.

    Where both preprocess alike this is the identity. Otherwise both are affine in the pixels, so the change is
    affine too, up to rounding; it does not hold in padded borders, so preprocessors that pad are refused.

    Raises:
        ValueError: The two differ and either one pads, or has other channels.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module):
        ours, theirs = Preprocessing.of(student), Preprocessing.of(teacher)
        self.flip = ours.flip != theirs.flip
        self.scale = self.shift = None
        if str(ours) == str(theirs):
            return
        pads = [
            type(module).__name__
            for module in (student, teacher)
            if not type(module).__module__.startswith('mmpretrain') or getattr(module, 'pad_size_divisor', 1) > 1
        ]
        if pads:
            raise ValueError(
                f'teacher and student preprocess images differently ({theirs}; {ours}) and {pads[0]} pads them, '
                'which cannot be translated: give both models the same data_preprocessor'
            )
        channels = max([len(value) for value in (ours.mean, theirs.mean) if value is not None], default=3)
        mean, std, their_mean, their_std = (
            torch.full((channels,), default) if value is None else value.expand(channels)
            for value, default in ((ours.mean, 0.0), (ours.std, 1.0), (theirs.mean, 0.0), (theirs.std, 1.0))
        )
        if self.flip:
            mean, std = mean.flip(0), std.flip(0)
        self.scale, self.shift = ((value / their_std).view(-1, 1, 1) for value in (std, mean - their_mean))

    def __call__(self, inputs: Tensor, data_samples: list | None) -> Tensor:
        """(B, C, H, W) for the student to (B, C, H, W) for the teacher."""
        if self.scale is None:
            return inputs
        for sample in data_samples or ():
            shape = sample.get('img_shape')
            if shape is not None and tuple(shape[:2]) != tuple(inputs.shape[2:]):
                raise ValueError(
                    f'an image of {tuple(shape[:2])} was padded to {tuple(inputs.shape[2:])}, and teacher and student '
                    'preprocess differently: give both models the same data_preprocessor, or all images one size'
                )
        self.scale, self.shift = self.scale.to(inputs), self.shift.to(inputs)  # copied to the device once
        return (inputs.flip(1) if self.flip else inputs) * self.scale + self.shift
