"""The teacher: loaded once, frozen, run only as deep as its taps."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmlckd.config import bare_model, read_config
from mmlckd.registry import MODELS
from mmlckd.taps import DryRun, FeatureTap, ForwardFailed, InputAdapter, Tap, dry_run, host_of, input_shapes

from .fields import teacher_fields
from .teacher_weights import Zeros, give_weights

PRECISIONS = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)


@functools.cache
def _runs_on_cpu(precision: str) -> bool:
    """Whether torch has kernels in 'bf16' or 'fp16' for this processor. If not, a warning says so once."""
    ask = getattr(torch.ops.mkldnn, f'_is_mkldnn_{precision}_supported', None)
    able = torch.backends.mkldnn.is_available() and ask is not None and ask()
    if not able:
        message = f'this processor only emulates {precision}, which is slower than fp32: the teacher runs in fp32'
        print_log(message, 'current', logging.WARNING)
    return able


class FrozenTeacher:
    """A network in evaluation mode without gradients.

    It is not an ``nn.Module``, so that its owner neither trains, saves, averages nor synchronises it. Copies of the
    owner share it.

    Args:
        spec: The config's ``teacher``: a config path or package name (``mmdet::...``), a model dict, a built model, or
            a dict of ``config`` or ``model``, with any of

            - ``checkpoint``: path or http(s) address; None keeps the model's own initialisation;
            - ``norm_stats``: 'running', or 'batch' to let batch norms normalise by the batch's statistics, as OFD and
              LONDON do; running statistics are never touched;
            - ``precision``: 'bf16' or 'fp16' runs the teacher alone under autocast of that type, 'fp32' keeps it out of
              one; None is as the student runs. bf16 pays where the processor has units for it, fp16 on GPUs. A CPU
              that torch has no such kernels for runs the teacher in fp32, with a warning.

            A built model is frozen in place; without a checkpoint it keeps its weights.
        name: Its name among several teachers, for messages.

    Raises:
        ValueError: The spec is not of that form, or the network has no parameters.
        FileNotFoundError: The config does not exist.

    Source: this project; ``norm_stats='batch'`` is OFD's and LONDON's code.
    """

    def __init__(self, spec: str | dict | nn.Module, name: str = 'teacher'):
        self.name = name if name == 'teacher' else f'teacher {name!r}'
        self.field = field = name if name == 'teacher' else f'teachers.{name}'
        spec = teacher_fields(spec, field)
        norm_stats = spec.get('norm_stats', 'running')
        if norm_stats not in ('running', 'batch'):
            raise ValueError(f"{field}.norm_stats is {norm_stats!r}: choose 'running' or 'batch'")
        self.precision: str | None = spec.get('precision')
        if self.precision not in (None, *PRECISIONS):
            choices = ', '.join(map(repr, PRECISIONS))
            raise ValueError(f'{field}.precision is {self.precision!r}: choose one of {choices}')
        self.checkpoint: str | None = spec.get('checkpoint')
        self._given = isinstance(spec.get('model'), nn.Module)
        self._loaded = False
        model = self._build(spec)
        if next(model.parameters(), None) is None:
            raise ValueError(f'{field} is a {type(model).__name__} without parameters: give a network that has learned')
        self.model: nn.Module = revert_sync_batchnorm(model)  # a frozen network has nothing to synchronise
        self.model.requires_grad_(False).eval()
        if norm_stats == 'batch':
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.train()
                    module.track_running_stats = False  # batch statistics in, running ones neither read nor written

    def _build(self, spec: dict) -> nn.Module:
        if isinstance(spec.get('model'), nn.Module):
            return spec['model']
        config = copy.deepcopy(spec['model']) if 'model' in spec else bare_model(read_config(spec['config']))
        with Zeros() if self.checkpoint else nullcontext():
            return MODELS.build(config)

    def __deepcopy__(self, memo) -> FrozenTeacher:
        return self

    def load(self) -> None:
        """Load the weights, once; called where training starts, so that testing needs no teacher file.

        Raises:
            FileNotFoundError, ValueError: The checkpoint is missing, unsafe, damaged, or does not fit, or weights are
                integers or not finite.
        """
        if self._loaded:
            return
        give_weights(self.model, self.checkpoint, self._given, self.field)
        if self._in_half:
            # In this layout convolutions in half precision run fastest.
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._loaded = True

    def prepare(
        self,
        taps: Sequence[Tap],
        student: nn.Module,
        student_shape: Sequence[int],
        input_shape: Sequence[int] | None = None,
    ) -> DryRun:
        """Settle what is tapped and how the student's input is read, by a dry run.

        Args:
            taps: Places in the teacher.
            student: The student, whose batches the teacher is to see.
            student_shape: (C, H, W) of the student's dry run.
            input_shape: The user's; its channels are the student's.

        Raises:
            ValueError: Detectors and segmentors read image sizes off samples of their own kind, and the student's are
                others; or the taps do not fit.
        """
        host, students = host_of(self.model), host_of(student)
        if host in ('mmdet', 'mmseg') and students is not None and host != students:
            raise ValueError(
                f"{self.field} is {host}'s {type(self.model).__name__} and student {students}'s "
                f"{type(student).__name__}: give a teacher of the student's own task, or a classifier"
            )
        self.taps = taps
        run = self._dry_run(input_shape)
        self.last_calls, self.overwritten = run.last_calls, run.overwritten
        channels = student_shape[0], run.input_shape[0]
        self.adapter = InputAdapter(student.data_preprocessor, self.model.data_preprocessor, channels)
        return run

    def _dry_run(self, input_shape: Sequence[int] | None) -> DryRun:
        if input_shape is None:
            return dry_run(self.model, self.taps, None, self.name)
        failure: ForwardFailed | None = None
        for channels in dict.fromkeys(shape[0] for shape in input_shapes(self.model)):
            try:
                return dry_run(self.model, self.taps, (channels, *input_shape[1:]), self.name)
            except ForwardFailed as error:
                failure = failure or error
        assert failure is not None
        raise failure

    @torch.no_grad()
    def __call__(self, inputs: Tensor, data_samples: list | None, taps: Sequence[Tap] | None = None) -> FeatureTap:
        """Tapped tensors of a batch that the student's preprocessor made; nothing beyond the deepest tap is run.

        ``taps`` are some of those that were prepared; None: all of them.

        Raises:
            ValueError: A tapped map was overwritten in place, as it was not in the dry run; or as :meth:`load`.
        """
        self.load()
        weight = next(self.model.parameters())
        if weight.device != inputs.device:
            self.model.to(inputs.device)  # a copy of the student, which shares this teacher, was moved elsewhere
        inputs = inputs.to(weight.dtype)  # so may a copy in half precision
        feats = FeatureTap(self.model, self.taps if taps is None else taps, self.last_calls, self.overwritten)
        with feats, self._autocast(inputs.device.type):
            self.model(self.adapter(inputs, data_samples), data_samples, mode='tensor')
        feats.refuse_overwritten(self.name)
        if self._in_half:  # the student's maps, which they meet, are laid out so
            feats.maps.update({tap: feat.contiguous() for tap, feat in feats.maps.items()})
        return feats

    @property
    def _in_half(self) -> bool:
        return self.precision in ('bf16', 'fp16')

    def _autocast(self, device: str) -> AbstractContextManager:
        if self.precision is None:
            return nullcontext()
        if self.precision == 'fp32' or (device == 'cpu' and not _runs_on_cpu(self.precision)):
            return torch.autocast(device, enabled=False)
        return torch.autocast(device, PRECISIONS[self.precision])
