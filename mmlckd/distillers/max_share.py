"""Losses that may make up no more than a share of the total."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def hold_to_shares(
    losses: dict[str, Any], shares: dict[str, float], parse_losses: Callable[[dict], tuple]
) -> dict[str, Any]:
    """Scale down losses above their share, measured against the rest, without waiting for the device.

    With R the sum of all losses that have no share, a loss is held to R * share / (1 - share): exactly its share if it
    is the only one, at most its share if there are several. A negative R counts as 0. A loss that is not finite cannot
    be held to anything and stays as it is, so that the log and ``FiniteLossHook`` name it.

    Args:
        losses: All losses of a step by name. Those with a share are scalars; their gradients keep their directions.
        shares: Name to the largest part of the total, in (0, 1).
        parse_losses: The student's, which adds up what a host's losses may be.

    Returns:
        A new dict of the same names and values, those above their share scaled down.

    Source: this project. LONDON's ablation warns of a Lipschitz term above a fifth of the total.
    """
    rest, _ = parse_losses({name: value for name, value in losses.items() if name not in shares})
    held = dict(losses)
    for name, share in shares.items():
        value = losses[name].detach()
        bound = rest.detach().clamp_min(0) * (share / (1 - share))
        above = (value > bound) & value.isfinite()
        held[name] = losses[name] * torch.where(above, bound / value, 1.0)
    return held
