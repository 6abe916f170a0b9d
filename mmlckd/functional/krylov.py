"""Leading eigenvectors: a power iteration that keeps its iterates, and repeated squaring for small matrices."""

from __future__ import annotations

import math
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def probe(size: int, like: Tensor) -> Tensor:
    """A fixed vector (size,) without structure, to start an iteration from, on the device and of the type of ``like``.

    It is a chirp: its values are spread like random ones. Vectors with structure fail: column sums vanish behind a
    LayerNorm, and a single frequency misses the singular vectors of a convolution.

    Source: this project.
    """
    index = torch.arange(1, size + 1, device=like.device, dtype=torch.float64)
    return (index * index * 2.399963).cos().to(like.dtype)


@torch.no_grad()
def leading_eigenvector(operator: Callable[[Tensor], Tensor], start: Tensor, num_iters: int) -> Tensor:
    """Top eigenvector of a symmetric positive semi-definite operator, for a batch of operators at once.

    Power iteration applies the operator ``num_iters`` times and looks at the last iterate only. This function keeps
    all iterates and takes the best vector of their span (the Lanczos method with full reorthogonalisation). The number
    of products is the same; where the top two eigenvalues are close, the error is smaller by orders of magnitude. The
    last, tiny problem (``num_iters`` squared numbers a sample) is solved by repeated squaring, so nothing here waits
    for the device.

    Args:
        operator: Maps rows (B, 1, n) to rows (B, 1, n). It is called ``num_iters`` times.
        start: (B, 1, n), not orthogonal to the eigenvector. A zero row gives a zero row.
        num_iters: Number of products with the operator, at least 1. No more than n are made.

    Returns:
        (B, 1, n): the eigenvector, of length one; zero where ``start`` is zero. Not differentiable.

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
        # An iterate inside the span of the earlier ones is rounding noise. It is set to zero, and so are all after it.
        row = torch.div(vector, _length(vector, floor), out=basis[:, step : step + 1])
        image = operator(row)
        if step == 0:
            scale = largest(image, -1)  # near the operator's norm: what follows is near one, and so are its squares
        image = torch.div(image, scale, out=images[:, step : step + 1])
        if step + 1 < steps:
            known, floor = basis[:, : step + 1], 100 * info.eps
            vector = image / _length(image, info.tiny)
            for _ in range(2):  # twice is enough (Kahan)
                vector = torch.baddbmm(vector, torch.bmm(vector, known.mT), known, alpha=-1)

    return torch.bmm(dominant_row(torch.bmm(images, basis.mT)), basis)


def _length(row: Tensor, floor: float) -> Tensor:
    """The length of rows, to divide by; infinite where it is no more than a floor."""
    return F.threshold(torch.linalg.vector_norm(row, dim=-1, keepdim=True), floor, math.inf)


def unit(row: Tensor) -> Tensor:
    """Rows of length one. They are divided by their largest value first, so that no square underflows or overflows."""
    return F.normalize(row / largest(row, -1), dim=-1)


def largest(tensor: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """The largest absolute value along ``dim``, which is kept; the smallest normal number where all are zero."""
    return torch.linalg.vector_norm(tensor, math.inf, dim, keepdim=True).clamp_min(torch.finfo(tensor.dtype).tiny)


@torch.no_grad()
def dominant_row(matrix: Tensor, together: int = 4, squarings: int = 20) -> Tensor:
    """Left eigenvector of the largest eigenvalue of small matrices, by repeated squaring.

    The matrices need not be symmetric. But then the largest eigenvalue may be much smaller than the norm, and each
    squaring shrinks the norm by up to the ratio r of the two. What is left after m squarings is r^(2^m - 1). Its square
    must not underflow, or the matrix cannot be scaled to norm one again.

    Args:
        matrix: (B, n, n) with real, non-negative eigenvalues, as a product of two positive semi-definite matrices has.
        together: Squarings between two scalings, m above. For symmetric matrices 4 is safe up to 128 rows, 3 up to
            10,000. For others, 2 is safe from r = 1e-6 on in float32 and from 1e-50 on in float64.
        squarings: How many; a multiple of ``together``. They make 2^squarings power iterations.

    Returns:
        (B, 1, n), of length one; zero for a zero matrix. Where the top two eigenvalues are closer than one part in
        2^squarings, a mixture of their vectors. Not differentiable.

    Source: this project.
    """
    tiny = torch.finfo(matrix.dtype).tiny
    matrix = matrix / largest(matrix, (1, 2))  # so that no square underflows in the first norm
    for _ in range(squarings // together):
        matrix = matrix / torch.linalg.vector_norm(matrix, dim=(1, 2), keepdim=True).clamp_min(tiny)
        for _ in range(together):
            matrix = torch.bmm(matrix, matrix)
    # Every row is now a multiple of the eigenvector. The largest diagonal entry names the best one.
    best = matrix.diagonal(dim1=1, dim2=2).argmax(-1)
    row = matrix.gather(1, best.view(-1, 1, 1).expand(-1, 1, matrix.shape[-1]))
    return unit(row)
