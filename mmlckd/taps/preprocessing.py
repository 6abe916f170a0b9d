"""Teacher and student with different image preprocessing on one batch."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .hosts import host_of


class Preprocessing(NamedTuple):
    """What a data preprocessor does to pixel values: channels flipped, then (x - mean) / std, then borders filled.

    ``mean`` and ``std`` are (C,) or (1,), on the CPU, or None where nothing is normalised. ``pad`` is the value that
    borders are filled with; it is not normalised.
    """

    flip: bool
    mean: Tensor | None
    std: Tensor | None
    pad: float

    @classmethod
    def of(cls, module: nn.Module) -> Preprocessing:
        module = _unwrapped(module)
        flip = any(getattr(module, name, False) for name in ('to_rgb', '_channel_conversion', 'channel_conversion'))
        pad = getattr(module, 'pad_value', 0.0)
        if not getattr(module, '_enable_normalize', False):
            return cls(flip, None, None, pad)
        return cls(flip, module.mean.flatten().cpu(), module.std.flatten().cpu(), pad)

    def affine(self, channels: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (channels,) each; 0 and 1 where nothing is normalised."""
        mean = torch.zeros(1) if self.mean is None else self.mean
        std = torch.ones(1) if self.std is None else self.std
        return mean.expand(channels), std.expand(channels)

    def __str__(self) -> str:
        mean, std = ('none' if value is None else _numbers(value) for value in (self.mean, self.std))
        return f'mean={mean}, std={std}, channels {"flipped" if self.flip else "as read"}, padded with {self.pad:g}'


class InputAdapter:
    """Turn a batch preprocessed for the student into the batch that the teacher's own preprocessor would have made.

    Where both preprocess alike this is the identity. Otherwise both are affine in the pixels, so the change is
    affine too, up to rounding. Padded borders get the teacher's ``pad_value``; they lie outside each sample's
    ``img_shape``. The size of the batch stays the student's. A gray image is repeated to the teacher's channels, and a
    colour image is averaged over its channels for a gray teacher.

    ``BatchSyncRandomResize`` blends image and border, and rounds ``img_shape`` down. After it, the pixels into which
    both were blended are not exact, and a border of one pixel is taken as image.

    Args:
        student, teacher: The two data preprocessors.
        channels: Channels of the student's images and of the teacher's.

    Raises:
        ValueError: Both have several channels, and not as many.

    Source: this project.
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
        if self.flip or not torch.equal(mean, their_mean) or not torch.equal(std, their_std):
            self.scale, self.shift = ((value / their_std).view(-1, 1, 1) for value in (std, mean - their_mean))
        self.pad = theirs.pad
        self.differs = self.scale is not None or ours.pad != theirs.pad
        if self.differs:
            message = f'the batch is translated for the teacher: it expects {theirs}, and the student {ours}'
            print_log(message, 'current', logging.INFO)
        self.borders = Borders(student, f'teacher and student preprocess images differently ({theirs}; {ours})')

    def _check_channels(self) -> None:
        ours, theirs = self.channels
        if min(ours, theirs) > 1:
            raise ValueError(
                f"the student's images have {ours} channels and the teacher's {theirs}: only one channel can be "
                'repeated, or several averaged to one, so give both networks images of one kind'
            )
        what = f'repeated to {theirs} channels' if ours == 1 else f'averaged over their {ours} channels'
        print_log(f"the student's images are {what} for the teacher", 'current', logging.INFO)

    def __call__(self, inputs: Tensor, data_samples: Sequence | None) -> Tensor:
        """(B, C, H, W) for the student to (B, C', H, W) for the teacher; ``inputs`` are not changed.

        Raises:
            ValueError: The two preprocess differently, and the samples do not tell where the images end.
        """
        sizes = self.borders.image_sizes(inputs, data_samples) if self.differs else []
        ours, theirs = self.channels
        if theirs > ours:
            inputs = inputs.expand(-1, theirs, -1, -1)
        if self.scale is not None:
            inputs = self._translated(inputs)
        if ours > theirs:
            inputs = inputs.mean(1, keepdim=True)
        padded = any(size != tuple(inputs.shape[2:]) for size in sizes)
        return self._filled(inputs, sizes) if padded else inputs

    def _translated(self, inputs: Tensor) -> Tensor:
        assert self.scale is not None and self.shift is not None
        self.scale, self.shift = self.scale.to(inputs), self.shift.to(inputs)  # copied to the device once
        return (inputs.flip(1) if self.flip else inputs) * self.scale + self.shift

    def _filled(self, inputs: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        """The host packages pad at the bottom and on the right."""
        inputs = inputs.clone()
        for image, (height, width) in zip(inputs, sizes):
            image[:, height:] = self.pad
            image[:, :, width:] = self.pad
        return inputs


class Borders:
    """Where the images of a preprocessed batch end and their padding begins.

    Args:
        student: The data preprocessor that makes the batches.
        difference: Why this must be known; begins the messages.
    """

    def __init__(self, student: nn.Module, difference: str):
        student = _unwrapped(student)
        augments = getattr(student, 'batch_augments', None)
        self.classifies = host_of(student) == 'mmpretrain'
        self.divisor = getattr(student, 'pad_size_divisor', None) or 1
        self.must_know = not self.classifies or self.divisor > 1
        self.mixes = self.classifies and augments is not None  # Mixup, CutMix and ResizeMix join images of a batch
        names = [type(augment).__name__ for augment in augments] if isinstance(augments, nn.ModuleList) else []
        self.slack = 1 if 'BatchSyncRandomResize' in names else 0
        self.difference = difference

    def image_sizes(self, inputs: Tensor, data_samples: Sequence | None) -> list[tuple[int, int]]:
        """(height, width) of each image of the batch (B, C, H, W), without its padding.

        Raises:
            ValueError: The samples do not tell, or what they tell does not fit the batch.
        """
        full = inputs.shape[2], inputs.shape[3]
        sizes = self._told(inputs, data_samples)
        if sizes is None:
            if self.must_know:
                self._refuse('the samples have no `img_shape` that tells where the padding begins')
            return [full] * len(inputs)
        fault = self._fault(sizes, full)
        if fault:
            self._refuse(fault)
        return sizes

    def likely_sizes(self, inputs: Tensor, data_samples: Sequence | None) -> list[tuple[int, int]]:
        """The same, but a batch counts as not padded where the samples do not tell, or what they tell does not fit.

        Some transforms of mmpretrain, such as those of torchvision, leave the size of the file in ``img_shape``.
        """
        full = inputs.shape[2], inputs.shape[3]
        sizes = self._told(inputs, data_samples)
        return [full] * len(inputs) if sizes is None or self._fault(sizes, full) else sizes

    def _told(self, inputs: Tensor, data_samples: Sequence | None) -> list[tuple[int, int]] | None:
        """The sizes that the samples tell; None where one of them does not."""
        samples = data_samples if isinstance(data_samples, (list, tuple)) else ()
        shapes = [sample.get('img_shape', None) if hasattr(sample, 'get') else None for sample in samples]
        known = [shape for shape in shapes if shape is not None]
        if not len(known) == len(shapes) == len(inputs):
            return None
        return [(self._side(shape[0], inputs.shape[2]), self._side(shape[1], inputs.shape[3])) for shape in known]

    def _side(self, side: int, full: int) -> int:
        return full if 0 <= full - side <= self.slack else int(side)

    def _fault(self, sizes: list[tuple[int, int]], full: tuple[int, ...]) -> str | None:
        """Why the sizes are no sizes of images that were padded to ``full``; None where they may be."""
        largest = tuple(map(max, zip(*sizes))) or full  # of no image
        padded = tuple(math.ceil(side / self.divisor) * self.divisor for side in largest)
        if max(largest[0] - full[0], largest[1] - full[1]) > 0 or (self.classifies and padded != full):
            return f'the largest `img_shape` of the samples is {largest}, which does not fit the batch of {full}'
        if self.mixes and any(size != full for size in sizes):
            return '`batch_augments` mixes images with the padding of others'
        return None

    def _refuse(self, why: str) -> None:
        raise ValueError(f'{self.difference}, and {why}: give both models the same data_preprocessor')


def _unwrapped(module: nn.Module) -> nn.Module:
    """mmdet's data preprocessor for several branches wraps the real one."""
    return getattr(module, 'data_preprocessor', module)


def _numbers(values: Tensor) -> str:
    """Every digit that float32 has, so that values that differ look different."""
    return f'[{", ".join(f"{value:.7g}" for value in values.tolist())}]'
