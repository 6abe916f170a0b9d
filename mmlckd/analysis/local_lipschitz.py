"""Local Lipschitz constants: the largest singular value of a network's Jacobian at given inputs."""

from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp, vjp

from mmlckd.compatibility import plain_attention
from mmlckd.functional.krylov import leading_eigenvector, probe


@torch.no_grad()
@plain_attention()  # the fused attentions have no forward-mode derivative
def local_lipschitz(function: Callable[[Tensor], Tensor], inputs: Tensor, num_iters: int = 20) -> Tensor:
    """sigma_max of the Jacobian at each input: a lower bound of the global Lipschitz constant, for any architecture.

    The Jacobian is never built: J^T J is applied by one forward-mode and one reverse-mode derivative.

    Args:
        function: Maps (B, ...) to (B, ...), each sample by itself (batch norms in evaluation mode) and differentiably.
        inputs: (B, ...), the points, of a floating type.
        num_iters: Products with J^T J, in the Krylov form of the power iteration. The value approaches from below.

    Returns:
        (B,), in output units per input unit. Not differentiable.

    Raises:
        RuntimeError: torch's, where an operation in the function has no forward-mode derivative.

    Source: this project; the Lipschitz constant as the supremum of the gradient norm is LONDON's section 3 (ICCV 2021).
    """

    _, pull_back = vjp(function, inputs)

    def normal(rows: Tensor) -> Tensor:
        _, image = jvp(function, (inputs,), (rows.view_as(inputs),))
        return pull_back(image)[0].flatten(1).unsqueeze(1)

    size = inputs[0].numel()
    start = F.normalize(probe(size, inputs), dim=0).expand(len(inputs), 1, size).contiguous()
    right = leading_eigenvector(normal, start, num_iters)
    _, image = jvp(function, (inputs,), (right.view_as(inputs),))
    return torch.linalg.vector_norm(image.flatten(1), dim=1)
