"""Operator norms of a network's layers at the sizes they really see."""

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


class _Folded(nn.Module):
    """A layer and the batch norm behind it, as one affine map: its linear part is scaled by |gamma| / sqrt(var + eps)."""

    def __init__(self, layer: nn.Module, norm: _BatchNorm):
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        return nn.functional.batch_norm(
            self.layer(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        )


class LayerNorms:
    """Operator norms of some convolutions and linear layers, each estimate starting from the singular vector before.

    The input size of a layer is that of its first call while :meth:`watch` is on. Of a shared layer, such as a detection head that
    runs on every level of a pyramid, it is the first level's.

    Args:
        model: Any network.
        layers: Regular expressions; a layer whose dotted name one of them is found in is selected.
        fold_norms: Take the batch norm that a layer's output goes into first as part of it, with its running variance. One without
            weights or running statistics is not folded.

    Raises:
        ValueError: Nothing is selected, or an expression is wrong.

    Source: this project; see :func:`mmlckd.functional.operator_norm` for the norm.
    """

    def __init__(self, model: nn.Module, layers: str | Sequence[str], fold_norms: bool = False):
        patterns = [layers] if isinstance(layers, str) else list(layers)
        known = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, (_ConvNd, nn.Linear)) and not name.startswith('distiller.')
        }
        try:
            self.layers = {
                name: module for name, module in known.items() if any(re.search(pattern, name) for pattern in patterns)
            }
        except re.error as error:
            raise ValueError(
                f'layers is {layers!r}, which is no regular expression ({error}): give parts of layer names'
            ) from error
        if not self.layers:
            raise ValueError(
                f'layers is {layers!r} and no convolution or linear layer of {type(model).__name__} has such a name: '
                f'there are {", ".join(map(repr, list(known)[:3])) or "none"} and {max(len(known) - 3, 0)} more'
            )
        self.norms = (
            {
                name: module
                for name, module in model.named_modules()
                if isinstance(module, _BatchNorm) and module.affine and module.running_var is not None
            }
            if fold_norms
            else {}
        )
        self.shapes: dict[str, tuple] = {}
        self.folded: dict[str, str] = {}
        self.vectors: dict[str, Tensor] = {}

    @contextmanager
    def watch(self) -> Iterator[None]:
        """While forwards run in here, learn the input size of each layer, and which batch norm follows it."""
        outputs: list[
            tuple
        ] = []  # tensors are held, so that none takes the place of another; their versions tell of changes in place

        def seen(name, module, args, kwargs):
            size = (*args, *kwargs.values())[0].shape
            self.shapes.setdefault(name, (1, *(size[-1:] if isinstance(module, nn.Linear) else size[1:])))

        def gives(name, module, args, output):
            outputs.append((name, output, output._version))

        def follows(name, module, args, kwargs):
            value = (*args, *kwargs.values())[0]
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

        ``num_iters`` is that of :func:`mmlckd.functional.operator_norm`: with None the norms are converged; with a number nothing waits
        for the device.
        """
        norms = []
        for name in self.names:
            layer, shape = self.layers[name], self.shapes[name]
            module = _Folded(layer, self.norms[self.folded[name]]) if name in self.folded else layer
            vector = self.vectors.get(name)
            if vector is None or vector.shape != shape:
                vector = torch.zeros(shape)
            self.vectors[name] = vector = vector.to(
                layer.weight.device, torch.promote_types(layer.weight.dtype, torch.float32)
            )
            norms.append(operator_norm(module, shape, num_iters=num_iters, vector=vector))
        return torch.stack(norms) if norms else torch.zeros(0)

    @torch.no_grad()
    def scale(self, factors: Tensor) -> None:
        """Multiply the linear part of each layer, in the order of :attr:`names`: its weight, or a folded batch norm's that is trained.

        A weight that layers share is multiplied once, by their smallest factor. A frozen one stays as it is.
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
        norm = self.norms[self.folded[name]] if name in self.folded else None
        return norm if norm is not None and norm.weight.requires_grad else self.layers[name]

    @property
    def names(self) -> list[str]:
        """Names of the selected layers that were seen, in the network's order."""
        return [name for name in self.layers if name in self.shapes]
