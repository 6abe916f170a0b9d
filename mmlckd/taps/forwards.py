"""One forward of zeros, after which a network is as before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .feature_tap import FeatureTap
from .hosts import host_of
from .tap import GridError, Tap, TapError


def device_of(model: nn.Module) -> torch.device:
    """Where a network's first parameter or buffer is; the CPU where it has none."""
    for tensors in (model.parameters(), model.buffers()):
        first = next(tensors, None)
        if first is not None:
            return first.device
    return torch.device('cpu')


class Seen(FeatureTap):
    """What the taps saw in one forward, and how often each module fired in it, by its path."""

    def __init__(self, model: nn.Module, taps: Sequence[Tap]):
        super().__init__(model, taps)
        self.fired: Counter[str] = Counter()


def forward_of_zeros(
    model: nn.Module, taps: Sequence[Tap], input_shape: Sequence[int], batch_size: int
) -> tuple[Seen, Exception | None]:
    """What the taps saw in one forward, and the error that it ended with; in the network's current mode.

    Where all taps are in ``backbone`` and ``neck``, only these run, so that no head can fail. The whole network runs
    where a tap does not fire in them.

    Raises:
        TapError: A tap does not fit what its module gives, whatever the size of the input.
    """
    inputs = torch.zeros(batch_size, *input_shape, device=device_of(model))
    if hasattr(model, 'extract_feat') and all(tap.module.split('.')[0] in ('backbone', 'neck') for tap in taps):
        feats, failure = _collected(model, taps, lambda: model.extract_feat(inputs))
        if all(tap in feats.maps for tap in feats.taps):
            return feats, failure
    return _collected(model, taps, lambda: model(inputs, _samples(model, inputs), mode='tensor'))


def _collected(model: nn.Module, taps: Sequence[Tap], run: Callable[[], Any]) -> tuple[Seen, Exception | None]:
    feats, failure = Seen(model, taps), None
    handles = [
        module.register_forward_hook(lambda *_, path=path: feats.fired.update([path]))
        for path, module in model.named_modules()
    ]
    try:
        with feats:
            run()
    except Exception as error:
        if isinstance(error, TapError) and not isinstance(error, GridError):
            raise
        failure = error
    finally:
        for handle in handles:
            handle.remove()
    return feats, failure


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Give the network its modes, buffers and trainable flags back afterwards, and torch its random state."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in modes
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False)
    ]
    device = device_of(model)
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)
            with torch.no_grad():
                for module, name, buffer, value in buffers:
                    setattr(module, name, buffer.copy_(value))


def _samples(model: nn.Module, inputs: Tensor) -> list | None:
    """Data samples for a forward in 'tensor' mode: detectors read the image size off them, and DINO an object."""
    if host_of(model) != 'mmdet':
        return None
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    size = tuple(inputs.shape[2:])
    metainfo = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=dict(metainfo)) for _ in inputs]
    for sample in samples:
        sample.gt_instances = InstanceData(
            bboxes=inputs.new_tensor([[0, 0, size[1], size[0]]]), labels=inputs.new_zeros(1, dtype=torch.long)
        )
    return samples
