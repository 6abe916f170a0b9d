"""Leading eigenvector of a symmetric operator: power iteration that keeps its iterates."""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

_ROUNDS = 5  # of four squarings: small problems get 2**20 exact power iterations


def probe(size: int, like: Tensor) -> Tensor:
    """A fixed vector (size,) without structure, to start from: a chirp, whose values are spread like random ones.

    Structured ones fail: column sums vanish behind a LayerNorm, and one frequency misses a convolution's vectors.
    """
    index = torch.arange(1, size + 1, device=like.device, dtype=torch.float64)
    return (index * index * 2.399963).cos().to(like.dtype)


@torch.no_grad()
def leading_eigenvector(operator: Callable[[Tensor], Tensor], start: Tensor, num_iters: int) -> Tensor:
    """Top eigenvector of a positive semi-definite operator, for a batch of operators at once.

    Power iteration applies the operator ``num_iters`` times and looks at the last iterate only. Here all
    iterates are kept and the best vector of their span is taken (the Lanczos method with full
    reorthogonalisation): the same products with the operator, an error smaller by orders of magnitude where
    the top two eigenvalues lie close. The last, tiny problem (``num_iters`` squared numbers a sample) is
    solved by repeated squaring, so nothing here waits for the device.

    Args:
        operator: Maps rows (B, 1, n) to rows (B, 1, n), of norm near one: its values are squared. Called
            ``num_iters`` times.
        start: (B, 1, n), not orthogonal to the vector sought. A zero row gives a zero row.
        num_iters: Number of products with the operator, at least 1; more than n are not made.

    Returns:
        (B, 1, n): the eigenvector, of length one; zero where ``start`` is zero. Nothing is differentiable.

    Raises:
        ValueError: ``num_iters`` is below 1.

    Source: Lanczos (1950), with the Rayleigh-Ritz step of Golub and Van Loan, Matrix Computations, section 10.1.
    """
    if num_iters < 1:
        raise ValueError(f'num_iters is {num_iters}: at least 1 is needed')
    info = torch.finfo(start.dtype)
    batch, _, size = start.shape
    steps = min(num_iters, size)
    basis = start.new_empty(batch, steps, size)  # orthonormal rows x_j
    images = torch.empty_like(basis)  # rows A x_j

    vector, floor = start, info.tiny
    for step in range(steps):
        length = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
        # An iterate inside the span of the earlier ones is rounding noise: it and all after it are zero.
        basis[:, step : step + 1] = vector * ((length > floor) / length.clamp_min(info.tiny))
        images[:, step : step + 1] = vector = operator(basis[:, step : step + 1])
        if step + 1 < steps:
            known = basis[:, : step + 1]
            overlap = torch.bmm(vector, known.mT)
            floor = torch.linalg.vector_norm(overlap, dim=-1, keepdim=True).mul_(100 * info.eps).clamp_min_(info.tiny)
            vector = torch.baddbmm(vector, overlap, known, alpha=-1)
            vector = torch.baddbmm(vector, torch.bmm(vector, known.mT), known, alpha=-1)  # twice is enough (Kahan)

    return torch.bmm(dominant_row(torch.bmm(images, basis.mT)), basis)


@torch.no_grad()
def dominant_row(matrix: Tensor) -> Tensor:
    """Left eigenvector of the largest eigenvalue of small matrices (B, n, n), by repeated squaring: rows (B, 1, n) of length one.

    The eigenvalues must be real and non-negative, as those of a product of two positive semi-definite matrices are. A zero matrix gives
    zero.
    """
    tiny = torch.finfo(matrix.dtype).tiny
    for _ in range(_ROUNDS):
        matrix = matrix / torch.linalg.vector_norm(matrix, dim=(1, 2), keepdim=True).clamp_min(tiny)
        for _ in range(4):
            matrix = torch.bmm(matrix, matrix)
    # Every row is now a multiple of the eigenvector; the largest diagonal entry names the best one.
    best = matrix.diagonal(dim1=1, dim2=2).argmax(-1)
    row = matrix.gather(1, best.view(-1, 1, 1).expand(-1, 1, matrix.shape[-1]))
    return row / torch.linalg.vector_norm(row, dim=-1, keepdim=True).clamp_min(tiny)
