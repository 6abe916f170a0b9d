"""Whether a tensor's gradient reaches trainable weights, read off its autograd graph."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.function import BackwardCFunction


def carries_gradient(feat: Tensor, trainable: set[int]) -> bool:
    """Whether backward from a tensor reaches one of the parameters, which are given by their ids.

    An autograd function that is written in Python counts as reaching one: reentrant checkpointing and reversible blocks
    give their weights gradient from inside of it, unseen in the graph.

    Source: this project.
    """
    if feat.grad_fn is None:
        return id(feat) in trainable
    waiting, seen = [feat.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        if isinstance(node, BackwardCFunction) or id(getattr(node, 'variable', None)) in trainable:
            return True
        seen.add(node)
        waiting.extend(before for before, _ in node.next_functions if before is not None)
    return False
