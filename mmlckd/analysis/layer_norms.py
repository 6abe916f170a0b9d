"""Operator norms of a network's layers at the sizes that they really see."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from mmlckd.functional import operator_norm


class LayerNorms:
    """Operator norms of some convolutions and linear layers. Each estimate starts from the singular vector before.

    The input size of a layer is that of its first call while :meth:`watch` is on. For a shared layer, such as a
    detection head that runs on every level of a pyramid, it is the size of the first level.

    Args:
        model: Any network.
        layers: Regular expressions. A layer is selected if one of them is found in its dotted name.
        fold_norms: If the output of a layer goes into a batch norm first, take this norm as part of the layer, with its
            running variance. One without weights or running statistics is not folded.

    Raises:
        ValueError: Nothing is selected, or an expression is wrong.

    Source: this project; see :func:`mmlckd.functional.operator_norm` for the norm.
    """

    def __init__(self, model: nn.Module, layers: str | Sequence[str], fold_norms: bool = False):
        self.layers = _select(model, layers)
        self.norms = _foldable(model) if fold_norms else {}
        self.shapes: dict[str, tuple] = {}
        self.folded: dict[str, str] = {}
        self.vectors: dict[str, Tensor] = {}

    @contextmanager
    def watch(self) -> Iterator[None]:
        """While forwards run in here, learn the input size of each layer, and which batch norm follows it."""
        # Tensors are held, so that none takes the place of another. Their versions tell of changes in place.
        outputs: list[tuple[str, Tensor, int]] = []

        def seen(name, module, args, kwargs):
            shape = _first(args, kwargs).shape
            shape = shape[-1:] if isinstance(module, nn.Linear) else shape[1:]
            self.shapes.setdefault(name, (1, *shape))

        def gives(name, module, args, output):
            outputs.append((name, output, output._version))

        def follows(name, module, args, kwargs):
            value = _first(args, kwargs)
            for layer, output, version in outputs:
                if output is value and output._version == version:
                    self.folded.setdefault(layer, name)

        with ExitStack() as stack:
            for name, module in self.layers.items():
                stack.callback(module.register_forward_pre_hook(partial(seen, name), with_kwargs=True).remove)
                if self.norms:
                    stack.callback(module.register_forward_hook(partial(gives, name)).remove)
            for name, module in self.norms.items():
                stack.callback(module.register_forward_pre_hook(partial(follows, name), with_kwargs=True).remove)
            yield
        outputs.clear()

    @torch.no_grad()
    def measure(self, num_iters: int | None = 2) -> Tensor:
        """Norms of the layers that were seen, one number each in the order of :attr:`names`.

        Args:
            num_iters: See :func:`mmlckd.functional.operator_norm`. With None the norms are converged; with a number
                nothing waits for the device.
        """
        norms = []
        for name in self.names:
            layer, shape = self.layers[name], self.shapes[name]
            vector = self.vectors.get(name)
            if vector is None or vector.shape != shape:
                vector = torch.zeros(shape)
            dtype = torch.promote_types(layer.weight.dtype, torch.float32)
            self.vectors[name] = vector = vector.to(layer.weight.device, dtype)
            module = _Folded(layer, self.norms[self.folded[name]]) if name in self.folded else layer
            norms.append(operator_norm(module, shape, num_iters=num_iters, vector=vector))
        return torch.stack(norms) if norms else torch.zeros(0)

    @torch.no_grad()
    def scale(self, factors: Tensor) -> None:
        """Multiply the linear part of each layer: its weight, or the weight of a folded batch norm that is trained.

        A weight that layers share is multiplied once, by their smallest factor. A frozen weight stays as it is.

        Args:
            factors: (layers,), in the order of :attr:`names`.
        """
        smallest: dict[nn.Parameter, Tensor] = {}
        for name, factor in zip(self.names, factors):
            if self.is_trained(name):
                weight = self._owner(name).weight
                smallest[weight] = torch.minimum(factor, smallest.get(weight, factor))
        for weight, factor in smallest.items():
            weight.mul_(factor.to(weight))

    def is_trained(self, name: str) -> bool:
        """Whether the linear part of that layer has trainable parameters."""
        return any(parameter.requires_grad for parameter in self._owner(name).parameters())

    def _owner(self, name: str) -> nn.Module:
        """The module whose weight is scaled for a layer: a folded batch norm if it is trained, else the layer."""
        if name in self.folded:
            norm = self.norms[self.folded[name]]
            if norm.weight.requires_grad:
                return norm
        return self.layers[name]

    @property
    def names(self) -> list[str]:
        """Names of the selected layers that were seen, in the network's order."""
        return [name for name in self.layers if name in self.shapes]


class _Folded(nn.Module):
    """A layer and the batch norm behind it, as one affine map whatever mode the batch norm is in."""

    def __init__(self, layer: nn.Module, norm: _BatchNorm):
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        return nn.functional.batch_norm(
            self.layer(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        )


def _select(model: nn.Module, layers: str | Sequence[str]) -> dict[str, nn.Module]:
    """Name to layer of the convolutions and linear layers that the expressions are found in."""
    patterns = [layers] if isinstance(layers, str) else list(layers)
    known: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, (_ConvNd, nn.Linear)) and not name.startswith('distiller.'):
            known[name] = module
    try:
        found = {name: known[name] for name in known if any(re.search(pattern, name) for pattern in patterns)}
    except re.error as error:
        raise ValueError(
            f'layers is {layers!r}, which is no regular expression ({error}): give parts of layer names'
        ) from error
    if not found:
        examples = ', '.join(map(repr, list(known)[:3])) or 'none'
        raise ValueError(
            f'layers is {layers!r} and no convolution or linear layer of {type(model).__name__} has such a name: '
            f'there are {examples} and {max(len(known) - 3, 0)} more'
        )
    return found


def _foldable(model: nn.Module) -> dict[str, _BatchNorm]:
    """Name to module of the batch norms with weights and running statistics."""
    norms = {}
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.affine and module.running_var is not None:
            norms[name] = module
    return norms


def _first(args: tuple, kwargs: dict) -> Tensor:
    """The input of a module, given by position or by name."""
    return (*args, *kwargs.values())[0]
