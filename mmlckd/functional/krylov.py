"""Leading eigenvector of a symmetric operator: power iteration that keeps its iterates."""

from typing import Callable, Optional

import torch
from torch import Tensor

_SQUARINGS = 10  # the small projected problem gets 2**10 exact power iterations


@torch.no_grad()
def leading_eigenvector(operator: Callable[[Tensor], Tensor],
                        start: Tensor,
                        num_iters: int,
                        metric: Optional[Callable[[Tensor], Tensor]] = None) -> Tensor:
    """Top eigenvector of a positive semi-definite operator, for a batch of operators at once.

    Power iteration applies the operator ``num_iters`` times and looks at the last iterate only. Here all
    iterates are kept and the best vector of their span is taken (the Lanczos method with full
    reorthogonalisation): the same products with the operator, an error smaller by orders of magnitude where
    the top two eigenvalues lie close. The last, tiny problem (``num_iters`` squared numbers a sample) is
    solved by repeated squaring, so nothing here waits for the device.

    Args:
        operator: Maps rows (B, 1, n) to rows (B, 1, n), of norm near one: its values are squared. Called
            ``num_iters`` times, on x or, with a ``metric`` G, on G x.
        start: (B, 1, n), not orthogonal to the vector sought. A zero row gives a zero row.
        num_iters: Number of products with the operator, at least 1.
        metric: Maps x to G x where the eigenproblem is A x = operator(G x), self-adjoint in the inner product
            x^T G y. None: the ordinary one, G = 1.

    Returns:
        (B, 1, n): the eigenvector, of length one in that inner product; zero where ``start`` is zero.
        Nothing is differentiable.

    Source: Lanczos (1950), with the Rayleigh-Ritz step of Golub and Van Loan, Matrix Computations, section 10.1.
    """
    info = torch.finfo(start.dtype)
    batch, _, size = start.shape
    steps = min(num_iters, size)
    basis = start.new_empty(batch, steps, size)  # rows x_j, orthonormal in the metric
    duals = basis if metric is None else torch.empty_like(basis)  # rows G x_j
    images = torch.empty_like(basis)  # rows A x_j

    vector, floor = start, start.new_tensor(info.tiny)
    for step in range(steps):
        if metric is None:
            length = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
        else:
            dual = metric(vector)
            length = torch.linalg.vecdot(vector, dual).clamp_min(0).sqrt().unsqueeze(-1)
        # An iterate inside the span of the earlier ones is rounding noise: shorter than one, it carries no weight.
        length = torch.maximum(length, floor)
        basis[:, step:step + 1] = vector / length
        if metric is not None:
            duals[:, step:step + 1] = dual / length
        images[:, step:step + 1] = vector = operator(duals[:, step:step + 1])
        if step + 1 < steps:
            known, known_duals = basis[:, :step + 1], duals[:, :step + 1].mT
            for _ in range(2):  # twice is enough (Kahan)
                overlap = torch.bmm(vector, known_duals)
                vector = torch.baddbmm(vector, overlap, known, alpha=-1)
                floor = torch.maximum(floor, torch.linalg.vector_norm(overlap, dim=-1, keepdim=True) * (100 * info.eps))

    projected = torch.bmm(images, duals.mT)
    for _ in range(_SQUARINGS):
        projected = projected / torch.linalg.vector_norm(projected, dim=(1, 2), keepdim=True).clamp_min(info.tiny)
        projected = torch.bmm(projected, projected)
    # Every row is now a multiple of the top eigenvector; the largest diagonal entry names the best one.
    best = projected.diagonal(dim1=1, dim2=2).argmax(-1)
    weights = projected.gather(1, best.view(-1, 1, 1).expand(-1, 1, steps))
    return torch.bmm(weights / torch.linalg.vector_norm(weights, dim=-1, keepdim=True).clamp_min(info.tiny), basis)
