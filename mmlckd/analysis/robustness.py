"""Accuracy of a classifier under noise and under attack.

The attacks are these few lines and no library's. At equal settings they are identical to captum.robust, ART, foolbox
and torchattacks. Captum's default threshold drops small gradients, as those in pixel units are, which weakens the
attack; the others bring pinned or unmaintained dependencies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def with_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of standard deviation ``sigma``, clipped to real pixels."""
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype).to(images.device)
    return (images + sigma * noise).clamp(0, 255)


def fgsm(logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """One step of ``epsilon`` along the sign of the loss's gradient (Goodfellow et al., 2015)."""
    return (images + epsilon * _direction(logits, images, labels)).clamp(0, 255)


def pgd(
    logits: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    generator: torch.Generator,
    steps: int = 10,
) -> Tensor:
    """Steps of ``epsilon`` / 4 from a random start, each back into the box of +-``epsilon`` (Madry et al., 2018)."""
    start = 2 * torch.rand(images.shape, generator=generator, dtype=images.dtype).to(images.device) - 1
    attacked = (images + epsilon * start).clamp(0, 255)
    for _ in range(steps):
        attacked = attacked + epsilon / 4 * _direction(logits, attacked, labels)
        attacked = (images + (attacked - images).clamp(-epsilon, epsilon)).clamp(0, 255)
    return attacked


def _direction(logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        loss = F.cross_entropy(logits(images), labels, reduction='sum')
    return torch.autograd.grad(loss, images)[0].sign()


@torch.no_grad()
def robust_accuracy(
    logits: Callable[[Tensor], Tensor],
    batches: Sequence[tuple[Tensor, Tensor]],
    sigmas: Sequence[float],
    epsilons: Sequence[float],
    seed: int = 0,
    attacks: Sequence[str] = ('fgsm', 'pgd'),
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict[str, list[float]]:
    """Accuracy in % under noise and attacks of several strengths.

    Args:
        logits: Maps images (B, C, H, W) of pixel values, 0 to 255, to (B, K), differentiable.
        batches: Such images and their labels, on one device.
        sigmas: Standard deviations of Gaussian noise, in pixel values.
        epsilons: Radii of the attacks in the maximum norm, in pixel values.
        seed: Of noise and random starts. Give the same to every network that is compared.
        attacks: Which of the two are run.
        progress: Wraps the list of what is measured, a pair of kind and strength each.

    Returns:
        'noise', one number for each sigma, and for each attack one for each epsilon.

    Source: FGSM of Goodfellow et al. (2015), PGD of Madry et al. (2018).
    """

    def changed(kind: str, images: Tensor, labels: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        if kind == 'noise':
            return with_noise(images, strength, generator)
        if kind == 'fgsm':
            return fgsm(logits, images, labels, strength)
        return pgd(logits, images, labels, strength, generator)

    cells = [('noise', sigma) for sigma in sigmas]
    for attack in attacks:
        cells += [(attack, epsilon) for epsilon in epsilons]
    result: dict[str, list[float]] = {kind: [] for kind in ('noise', *attacks)}
    total = sum(len(labels) for _, labels in batches)
    for kind, strength in progress(cells):
        generator = torch.Generator().manual_seed(seed)
        right = 0
        for images, labels in batches:
            predicted = logits(changed(kind, images, labels, strength, generator)).argmax(1)
            right += int((predicted == labels).sum())
        result[kind].append(100 * right / total)
    return result
