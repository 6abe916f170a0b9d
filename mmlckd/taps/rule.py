"""The rule that finds the taps of one network, for ``taps='auto'``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .feature_tap import FeatureTap
from .forwards import device_of, left_as_it_was
from .reach import carries_gradient
from .tap import Tap
from .tracing import Fired, Trace, side_of, trace

EVENLY = 4  # taps of a plain transformer

# Networks of several branches, whose modules do not follow each other. By class: modules of the backbone.
BRANCHES: dict[str, tuple[str, ...]] = {
    'BiSeNetV1': tuple(f'context_path.backbone.layer{i}' for i in (1, 2, 3, 4)),
    'BiSeNetV2': ('semantic.stage1', 'bga', 'semantic.stage3', 'semantic.stage4_CEBlock'),
    'DDRNet': ('spatial_branch_layers.1', 'spatial_branch_layers.2', 'context_branch_layers.0',
               'context_branch_layers.1'),
    'PIDNet': ('p_branch_layers.1', 'p_branch_layers.2', 'i_branch_layers.0', 'i_branch_layers.1'),
    'STDCContextPathNet': tuple(f'backbone.stages.{i}' for i in (1, 2, 3, 4)),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A tap that the rule found.

    Attributes:
        tap: The tap.
        shape: (B, C, H, W) of its map, or (B, N, C) of its tokens, in the trace.
        stride: Pixels of the input per position, to the nearest power of 2.
        trainable: Whether its gradient reaches a trainable weight of the network.
        before_relu: Whether it is what a ReLU takes, right after a batch norm.
    """

    tap: Tap
    shape: tuple[int, ...]
    stride: int
    trainable: bool = True
    before_relu: bool = False

    @property
    def channels(self) -> int:
        return self.shape[1] if len(self.shape) == 4 else self.shape[2]

    @property
    def is_tokens(self) -> bool:
        return len(self.shape) == 3


def find_places(model: nn.Module) -> list[Place]:
    """The places of a network that the rule taps, shallow to deep.

    The first of these that fits:

    1. a network of several branches: the modules that ``BRANCHES`` names;
    2. a residual network that ends its stages by a ReLU, or begins them by a batch norm: what goes into that ReLU;
    3. a backbone that returns three maps or more of falling size, the same in training and in evaluation: these;
    4. a plain transformer, eight blocks or more that keep their tokens: four blocks at even distances;
    5. otherwise the last module before each change of the maps' size. Modules are taken as far outside as they fire
       once. Where there are fewer than two such sizes, it is the last module before each change of channels too.

    Strides below 4 are left out of networks that reach a stride of 16.

    Raises:
        ValueError: The network has no backbone, or the rule finds nothing in it.

    Source: this project.
    """
    found = trace(model)
    taps: Sequence[Tap] = ()
    for rule in (_branches, _before_relus, _returned, _last_before_changes):
        taps = rule(model, found)
        if taps:
            break
    places = _measured(model, taps, found)
    if any(place.stride >= 16 for place in places):
        places = [place for place in places if place.stride >= 4]
    if not places:
        raise ValueError(
            f"taps is 'auto' and the rule finds no map in a {type(model.backbone).__name__}: list its module paths"
        )
    return places


def _branches(model: nn.Module, found: Trace) -> list[Tap]:
    names = (base.__name__ for base in type(model.backbone).__mro__)
    paths = next((BRANCHES[name] for name in names if name in BRANCHES), ())
    return [Tap(f'backbone.{path}') for path in paths]


def _before_relus(model: nn.Module, found: Trace) -> list[Tap]:
    """Stage ends of OpenMMLab's ResNets and of this package's pre-activation networks."""
    backbone = model.backbone
    if hasattr(backbone, 'res_layers'):
        blocks = [f'backbone.{stage}.{len(getattr(backbone, stage)) - 1}' for stage in backbone.res_layers]
        taps = [Tap(f'{block}.relu', io='input') for block in blocks]
        return taps if all(tap.module in found.fired for tap in taps) else []
    names = ('layer2.0.bn1', 'layer3.0.bn1', 'bn')
    own = any(base.__name__ == 'PreActBackbone' for base in type(backbone).__mro__)
    return [Tap(f'backbone.{name}') for name in names] if own else []


def _returned(model: nn.Module, found: Trace) -> list[Tap]:
    sides = [side_of(shape) for shape in found.returned if len(shape) == 4]
    if len(sides) < 3 or len(sides) < len(found.returned) or sides != sorted(sides, reverse=True):
        return []
    trained = trace(model, trained=True).returned
    if [shape[1:] for shape in trained] != [shape[1:] for shape in found.returned]:
        return []
    return [Tap('backbone', index=i) for i in range(len(sides))]


def _last_before_changes(model: nn.Module, found: Trace) -> list[Tap]:
    modules = sorted(_outermost(model.backbone, 'backbone', found), key=lambda record: record.order)
    falling, lowest = [], found.size
    for record in modules:
        if record.side <= lowest:  # what rises again is no single path
            lowest = record.side
            falling.append(record)
    blocks = _token_blocks(falling)
    if blocks:
        return [Tap(record.path) for record in blocks]
    chosen = _last_of_each(falling, lambda record: record.side)
    if len([record for record in chosen if record.side <= found.size // 4]) < 2:
        chosen = _last_of_each(falling, lambda record: (record.side, record.channels))
    return [
        Tap(record.path, index=record.spatial[0] if record.is_sequence and len(record.shapes) > 1 else None)
        for record in chosen
    ]


def _outermost(module: nn.Module, path: str, found: Trace) -> Iterator[Fired]:
    """Modules that fire once and give one map, as far outside as they are on one side of every change of size."""
    for name, child in module.named_children():
        inner = f'{path}.{name}'
        record = found.fired.get(inner)
        if record is not None and record.calls == 1 and record.side > 1 and not _changes_inside(record, found):
            yield record
        else:
            yield from _outermost(child, inner, found)


def _changes_inside(record: Fired, found: Trace) -> bool:
    """Whether the size changes more than once within a module."""
    inside = (other for path, other in found.fired.items() if path.startswith(f'{record.path}.'))
    return any(record.side < other.side < record.side_in for other in inside)


def _last_of_each(records: Sequence[Fired], key: Callable) -> list[Fired]:
    """The last of each run of equal keys."""
    following = [*records[1:], None]
    return [one for one, other in zip(records, following) if other is None or key(one) != key(other)]


def _token_blocks(records: Sequence[Fired]) -> list[Fired]:
    """Four blocks at even distances, of a list of eight or more that keep the number and the width of their tokens."""
    lists: dict[tuple, list[Fired]] = {}
    for record in records:
        if not record.is_sequence and len(record.shapes[0]) == 3:
            lists.setdefault((record.path.rpartition('.')[0], record.shapes[0]), []).append(record)
    blocks = max(lists.values(), key=len, default=[])
    if len(blocks) < 2 * EVENLY:
        return []
    return [blocks[round((i + 1) * len(blocks) / EVENLY) - 1] for i in range(EVENLY)]


def _measured(model: nn.Module, taps: Sequence[Tap], found: Trace) -> list[Place]:
    """The taps with what they give in a forward, and whether that teaches the network anything."""
    images = torch.zeros(2, *found.input_shape, device=device_of(model))
    with left_as_it_was(model), torch.enable_grad():
        model.train()
        trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
        with FeatureTap(model, taps) as feats:
            model.backbone(images)
        reached = {tap: carries_gradient(feats[tap], trainable) for tap in taps}
    modules = dict(model.named_modules())
    return [
        Place(
            tap=tap,
            shape=tuple(feats[tap].shape),
            stride=2 ** round(math.log2(found.size / max(side_of(tuple(feats[tap].shape)), 1))),
            trainable=reached[tap],
            before_relu=_follows_a_norm(tap, modules),
        )
        for tap in taps
    ]


def _follows_a_norm(tap: Tap, modules: dict[str, nn.Module]) -> bool:
    """Whether OFD can read its margins off a batch norm: the tapped one, or the one before a tapped ReLU."""
    if tap.io == 'output':
        return isinstance(modules[tap.module], _BatchNorm)
    beside = modules[tap.module.rpartition('.')[0]].children()
    return any(isinstance(module, _BatchNorm) for module in beside)
