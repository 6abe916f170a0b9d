"""The teacher: loaded once, frozen, run only as deep as its taps."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from mmlckd.checkpoints import load_weights
from mmlckd.config import bare_model, find_file, read_config
from mmlckd.registry import MODELS
from mmlckd.taps import FeatureTap, InputAdapter, Tap, dry_run

OPTIONS = ('checkpoint', 'norm_stats', 'precision')
PRECISIONS = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)


class _Zeros(TorchFunctionMode):
    """Within it torch's initialisers write zeros: random numbers take time, and a checkpoint will replace them one and all."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, '__module__', None) == 'torch.nn.init':
            return (kwargs['tensor'] if 'tensor' in kwargs else args[0]).detach().zero_()
        return func(*args, **kwargs)


class FrozenTeacher:
    """A network in evaluation mode without gradients.

    It is not an ``nn.Module``, so that its owner neither trains, saves, averages nor synchronises it; copies of the
    owner share it.

    Args:
        spec: The config's ``teacher``: a config path or package name (``mmdet::...``), a model dict, or a dict of
            ``config`` or ``model``, with any of

            - ``checkpoint``: path or http(s) address; None keeps the model's own initialisation;
            - ``norm_stats``: 'running', or 'batch' to let batch norms normalise by the batch's statistics, as OFD and
              LONDON do; running statistics are never touched;
            - ``precision``: 'bf16' or 'fp16' runs the teacher alone under autocast of that type, 'fp32' keeps it out of one; None is as the
              student runs. bf16 pays where the processor has units for it, fp16 on GPUs.

    Raises:
        ValueError: The spec is not of that form.
        FileNotFoundError: The config does not exist.
    """

    def __init__(self, spec: str | dict):
        spec = dict(config=spec) if isinstance(spec, str) else dict(spec)
        if 'type' in spec:
            options = {key: spec.pop(key) for key in OPTIONS if key in spec}
            spec = dict(model=spec, **options)
        unknown = set(spec) - {'config', 'model', *OPTIONS}
        if unknown or ('config' in spec) == ('model' in spec):
            raise ValueError(
                f'teacher has the fields {sorted(spec)}: give config or model, and optionally {", ".join(OPTIONS)}'
            )
        norm_stats = spec.get('norm_stats', 'running')
        if norm_stats not in ('running', 'batch'):
            raise ValueError(f"teacher.norm_stats is {norm_stats!r}: choose 'running' or 'batch'")
        self.precision: str | None = spec.get('precision')
        if self.precision not in (None, *PRECISIONS):
            raise ValueError(
                f'teacher.precision is {self.precision!r}: choose one of {", ".join(map(repr, PRECISIONS))}'
            )
        config = copy.deepcopy(spec['model']) if 'model' in spec else bare_model(read_config(spec['config']))
        self.checkpoint: str | None = spec.get('checkpoint')
        with _Zeros() if self.checkpoint else nullcontext():
            self.model: nn.Module = revert_sync_batchnorm(
                MODELS.build(config)
            )  # a frozen network has nothing to synchronise
        self.model.requires_grad_(False).eval()
        if norm_stats == 'batch':
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.train()
                    module.track_running_stats = False  # batch statistics in, running ones neither read nor written
        self._loaded = False

    def __deepcopy__(self, memo) -> FrozenTeacher:
        return self

    def load(self) -> None:
        """Load the weights, once; called where training starts, so that testing needs no teacher file.

        Raises:
            FileNotFoundError, ValueError: The checkpoint is missing, unsafe, damaged, or does not fit.
        """
        if self._loaded:
            return
        if self.checkpoint is None:
            print_log(
                'teacher.checkpoint is not given: the teacher keeps its initial weights', 'current', logging.WARNING
            )
            if hasattr(self.model, 'init_weights'):
                self.model.init_weights()
        else:
            load_weights(self.model, str(find_file(self.checkpoint) or self.checkpoint))
        if self._in_half:
            self.model.to(memory_format=torch.channels_last)  # in which convolutions in half precision run fastest
        self._loaded = True

    def prepare(self, taps: Sequence[Tap], student: nn.Module, input_shape: Sequence[int]) -> dict[Tap, tuple]:
        """Settle what is tapped and how the student's input is read; returns the taps' shapes, by a dry run.

        Raises:
            ValueError: Detectors and segmentors read image sizes off samples of their own kind, and the student's are others.
        """
        host, students = (type(model).__module__.partition('.')[0] for model in (self.model, student))
        if host in ('mmdet', 'mmseg') and students in ('mmpretrain', 'mmdet', 'mmseg') and host != students:
            raise ValueError(
                f"teacher is {host}'s {type(self.model).__name__} and student {students}'s {type(student).__name__}: "
                "give a teacher of the student's own task, or a classifier"
            )
        self.taps = taps
        run = dry_run(self.model, taps, input_shape, 'teacher')
        self.last_calls, self.overwritten = run.last_calls, run.overwritten
        self.adapter = InputAdapter(student.data_preprocessor, self.model.data_preprocessor)
        return run.shapes

    @torch.no_grad()
    def __call__(self, inputs: Tensor, data_samples: list | None) -> FeatureTap:
        """Tapped tensors of a batch that the student's preprocessor made; nothing beyond the deepest tap is run."""
        self.load()
        with (
            FeatureTap(self.model, self.taps, self.last_calls, self.overwritten) as feats,
            self._autocast(inputs.device.type),
        ):
            self.model(self.adapter(inputs, data_samples), data_samples, mode='tensor')
        if self._in_half:
            feats.maps.update(
                {tap: feat.contiguous() for tap, feat in feats.maps.items()}
            )  # as the student's are, which they meet
        return feats

    @property
    def _in_half(self) -> bool:
        return self.precision in ('bf16', 'fp16')

    def _autocast(self, device: str) -> AbstractContextManager:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(device, PRECISIONS[self.precision], enabled=self.precision != 'fp32')
