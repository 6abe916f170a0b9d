"""One training step of a pair, as tools/distill.py would build it."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import get_state_dict
from mmengine.structures import PixelData
from pairs import Pair
from torch import nn

from mmlckd.config import bare_model, read_config
from mmlckd.recipes import Recipe, choose
from mmlckd.registry import MODELS
from mmlckd.taps import FeatureTap


def plain(node: Any, size: int) -> Any:
    """A model config without files to download, whose preprocessor pads to the size of the trial."""
    if isinstance(node, dict):
        kept = {key: plain(value, size) for key, value in node.items() if key not in ('init_cfg', 'pretrained')}
        return ConfigDict(kept)
    return type(node)(plain(item, size) for item in node) if isinstance(node, (list, tuple)) else node


def network(name: str, size: int) -> nn.Module:
    """The network of a config, with random weights."""
    model = plain(bare_model(read_config(name)), size)
    if name.startswith('mmseg'):
        model.data_preprocessor.size = (size, size)
    if name.startswith('mmdet'):  # random resizes would make the images larger than they need be
        model.data_preprocessor.pop('batch_augments', None)
    built = revert_sync_batchnorm(MODELS.build(model))
    built.init_weights()  # some heads begin with boxes that only this makes valid
    return built


def batch_of(host: str, model: nn.Module, size: int) -> dict[str, list]:
    """Two random images with labels, as the data loader of a host gives them."""
    generator = torch.Generator().manual_seed(0)
    images = list(torch.randint(0, 255, (2, 3, size, size), generator=generator, dtype=torch.uint8))
    if host == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        shape = [3, size, size]
        data = demo_mm_inputs(
            2, [shape, shape], num_items=[2, 2], num_classes=3, with_mask=bool(getattr(model, 'with_mask', False))
        )
        return dict(inputs=images, data_samples=data['data_samples'])
    if host == 'mmseg':
        return dict(inputs=images, data_samples=[_segmented(size, generator) for _ in images])
    from mmpretrain.structures import DataSample

    return dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in (1, 3)])


def _segmented(size: int, generator: torch.Generator) -> Any:
    from mmseg.structures import SegDataSample

    shape = (size, size)
    masks = [torch.randint(0, count, (1, *shape), generator=generator) for count in (3, 2)]
    sample = SegDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, pad_shape=shape))
    sample.set_data(dict(gt_sem_seg=PixelData(data=masks[0]), gt_edge_map=PixelData(data=masks[1])))
    return sample


def try_pair(pair: Pair) -> dict[str, Any]:
    """Build a pair as tools/distill.py would, and train one step.

    Returns:
        What was found: 'taps', 'strides', 'losses' and 'left_out', or 'fails' with the reason.
    """
    try:
        return _tried(pair)
    except Exception as error:  # the page says why
        reason = re.sub(r'\s+', ' ', str(error))
        kind = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
        return dict(fails=kind + reason[:400])


def _tried(pair: Pair) -> dict[str, Any]:
    host = pair.student.partition('::')[0]
    import_module(f'{host}.models')
    init_default_scope(host)
    torch.manual_seed(0)
    student, teacher = network(pair.student, pair.size), network(pair.teacher, pair.size)
    stock = copy.deepcopy(student)
    plan = choose(student, teacher)
    config = Recipe(pair.student, read_config(pair.student), pair.teacher, 'random.pth', plan).as_config()
    fields = {name: value for name, value in config.model.items() if name not in ('student', 'teacher')}
    model = MODELS.build(dict(fields, student=student, teacher=teacher)).train()
    before = copy.deepcopy(teacher.state_dict())
    batch = batch_of(host, model, pair.size)
    _see_gradient(model, batch, plan.pairs[0][0].tap)
    model.train_step(copy.deepcopy(batch), OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-4)))
    _see(all(_same(value, before[name]) for name, value in teacher.state_dict().items()), 'the teacher changed')
    _see(all(parameter.grad is None for parameter in teacher.parameters()), 'the teacher has gradients')
    state = {name: value for name, value in get_state_dict(model).items() if not name.startswith('distiller.')}
    stock.load_state_dict(state, strict=True)
    return dict(
        taps=[str(ours.tap) for ours, _ in plan.pairs],
        teacher_taps=[str(theirs.tap) for _, theirs in plan.pairs],
        strides=[ours.stride for ours, _ in plan.pairs],
        losses=[term.fields['type'].removeprefix('mmlckd.') for term in plan.terms],
        left_out=plan.notes,
    )


def _see_gradient(model: nn.Module, batch: dict, first) -> None:
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    source = replace(first, grid=None)  # what the module gave; its layout on a grid is made anew by every tap
    with FeatureTap(model, [source]) as feats:
        losses = model(**data, mode='loss')
    features = next(entry for entry in model.distiller.entries if entry.student_taps[0] == first)
    (gradient,) = torch.autograd.grad(losses[features.key], feats[source])
    _see(gradient.isfinite().all() and gradient.norm() > 0, f'no gradient at the first tap, {first}')


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """NaN equals NaN: some detectors leave parameters as the memory was until weights are loaded."""
    return torch.allclose(one.double(), other.double(), rtol=0.0, atol=0.0, equal_nan=True)


def _see(holds: Any, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
