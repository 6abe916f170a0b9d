"""An upper bound of a network's Lipschitz constant: norms multiplied along chains and added over skip connections."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Callable, NamedTuple

import torch
from torch import Tensor, nn

from .bound_rules import rule_of, stretches_nothing


class Bound(NamedTuple):
    """An upper bound in output units per input unit, None where there is none, and the modules without a bound."""

    value: float | None
    unbounded: list[str]


def product_bound(model: nn.Module, forward: Callable[[], object]) -> Bound:
    """Upper bound of the Lipschitz constant of a network in evaluation mode, from its parts.

    A chain is bounded by the product of its parts, a residual block by the sum of its branch and its shortcut.
    Convolutions and linear layers count with their operator norm at their real input size, batch norms with
    max |gamma| / sqrt(var + eps), poolings with their own norm.

    Rules exist for ``nn.Sequential``, the residual blocks of OpenMMLab's ResNets and of this package's backbones, those
    backbones, and image classifiers with a linear head on them; also for subclasses, unless they have a forward of
    their own. Nothing is guessed: a module without a rule is named, and so is whatever ran without being counted, such
    as a plugin inside a block.

    Args:
        model: The network.
        forward: Runs it once, on one input of the size that the bound is for.

    Returns:
        The bound of the classifier's logits, or of the backbone's last map, as a function of the network's (normalised)
        input. Operator norms approach from below, each to about 1e-4 of its value, and so does the bound.

    Source: Szegedy et al., Intriguing properties of neural networks (2014), section 4.3, for the product; sums over
    skip connections as in Gouk et al. (2021), section 3.3.
    """
    walk = Walk(model)
    with torch.no_grad():
        with walk.watch():
            forward()
        value = walk.of(model)
    walk.name_uncounted()
    return Bound(None if walk.unbounded else value, walk.unbounded)


class Walk:
    """Bounds of a network's modules, and what the rules ask for; where there is no bound it is 1, and the name is kept.

    Args:
        model: The network.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.names = {module: name or 'the network' for name, module in model.named_modules()}
        self.shapes: dict[nn.Module, set[tuple]] = {}  # of every module that ran
        self.counted: set[nn.Module] = set()
        self.unbounded: list[str] = []

    def watch(self) -> ExitStack:
        """Note the sizes of each module's inputs, while forwards run in the context returned."""

        def seen(module, args, kwargs):
            shapes = self.shapes.setdefault(module, set())
            for value in (*args, *kwargs.values())[:1]:
                if isinstance(value, Tensor):
                    shapes.add(_one_sample(module, value))

        stack = ExitStack()
        for module in self.model.modules():
            stack.callback(module.register_forward_pre_hook(seen, with_kwargs=True).remove)
        return stack

    def of(self, module: nn.Module | None) -> float:
        """The bound of a module, by its rule; 1 for None, which is how networks leave a part out."""
        if module is None:
            return 1.0
        self.counted.add(module)
        rule = rule_of(module)
        if rule is None:
            return self.unknown(module, type(module).__name__)
        return rule(self, module)

    def chain(self, modules: Iterable[nn.Module | None]) -> float:
        """The bound of modules one after another."""
        return math.prod([self.of(module) for module in modules])

    def largest(self, module: nn.Module, norm: Callable[[tuple], float]) -> float:
        """The norm at the size that the module ran at, or the largest where it ran at several."""
        if not self.shapes.get(module):
            return self.unknown(module, 'it was not called, so its input size is not known')
        return max(norm(shape) for shape in self.shapes[module])

    def unknown(self, module: nn.Module, why: str) -> float:
        """Note a module without a bound, and go on with 1."""
        self.without(module)
        self.unbounded.append(f'{self.names[module]} ({why})')
        return 1.0

    def without(self, module: nn.Module) -> None:
        """Count a module, and what is inside it, as dealt with."""
        self.counted.update(module.modules())

    def name_uncounted(self) -> None:
        """Note the layers that ran and that no rule asked for. Layers that stretch nothing need not be asked for."""
        for module in self.shapes:
            is_layer = not any(module.children())
            if is_layer and module not in self.counted and not stretches_nothing(module):
                self.unknown(module, f'{type(module).__name__}, which runs where no rule counts it')


def _one_sample(module: nn.Module, value: Tensor) -> tuple:
    """The size of an input with a batch of one; of a linear layer's its features alone."""
    if isinstance(module, nn.Linear):
        return (1, value.shape[-1])
    return (1, *value.shape[1:])
