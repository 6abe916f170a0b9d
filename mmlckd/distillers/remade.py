"""Tapped outputs of batch norms, which losses need not keep for the backward pass: they are made again."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import disable_saved_tensors_hooks, saved_tensors_hooks

from mmlckd.taps import Tap

# The nodes that batch norms leave in the graph, on CPUs and GPUs. A synchronised norm's is another one.
_NORMS = 'NativeBatchNormBackward0', 'CudnnBatchNormBackward0', 'MiopenBatchNormBackward0'


class Remade:
    """The output of a batch norm in training mode, to be made again from what the norm itself keeps for its gradient.

    Args:
        node: The norm's node in the graph.
        bias: Its bias, (C,), which the node does not keep.

    Source: this project.
    """

    def __init__(self, node: Any, bias: Tensor):
        self.node, self.bias = node, bias

    @classmethod
    def of(cls, feat: Tensor) -> Remade | None:
        """The norm's output that ``feat`` is, or is a copy of; None where it is another tensor.

        None also where hooks pack what is kept, as a checkpoint's do: they may unpack it once, for the norm itself.
        """
        node: Any = feat.grad_fn
        if type(node).__name__ == 'CloneBackward0':
            node = node.next_functions[0][0]
        if type(node).__name__ not in _NORMS or not node._saved_training or _packed():
            return None
        leaf = node.next_functions[2][0]  # input, weight, bias; None where no gradient is wanted
        return None if leaf is None or not hasattr(leaf, 'variable') else cls(node, leaf.variable)

    @torch.no_grad()
    def make(self) -> Tensor:
        """The tensor."""
        node = self.node
        feat, mean, inverse = node._saved_input, node._saved_result1, node._saved_result2
        variance = inverse.double().square().reciprocal().to(mean.dtype)
        weight, bias = node._saved_weight.to(mean.dtype), self.bias.to(mean.dtype)  # these may be half
        with torch.autocast(feat.device.type, enabled=False):
            # That of torch.nn.functional wants an epsilon, which the variance has in it already.
            return torch.batch_norm(feat, weight, bias, mean, variance, False, 0.0, 0.0, False)


def _packed() -> bool:
    """Whether hooks pack what operations keep at present."""
    try:
        with disable_saved_tensors_hooks('no hooks'):
            return False
    except RuntimeError:  # they are there already
        return True


class Kept:
    """How operations keep tensors for their gradients: arrived maps by :class:`Remade`, where that can be.

    All else they keep as it is, whatever hooks there are around :meth:`hooks`.
    """

    def __init__(self) -> None:
        # Operations hold on to the hooks, and so to this, until the backward pass: the maps must not be among it.
        self._feats: dict[Tap, weakref.ref[Tensor]] = {}
        self.remade: dict[Tap, Remade] = {}

    def arrive(self, tap: Tap, feat: Tensor) -> None:
        remade = Remade.of(feat)
        if remade is not None:
            self._feats[tap], self.remade[tap] = weakref.ref(feat), remade

    def hooks(self) -> saved_tensors_hooks:
        """A context for operations on the maps that have arrived."""
        return saved_tensors_hooks(self._pack, _unpacked)

    def _pack(self, tensor: Tensor) -> Tensor | Remade:
        return next((self.remade[tap] for tap, feat in self._feats.items() if _are_one(tensor, feat())), tensor)


def _unpacked(kept: Tensor | Remade) -> Tensor:
    return kept.make() if isinstance(kept, Remade) else kept


def _are_one(left: Tensor, right: Tensor | None) -> bool:
    """Whether two tensors are the same numbers in the same memory."""
    return right is not None and left.dtype == right.dtype and left.is_set_to(right)
