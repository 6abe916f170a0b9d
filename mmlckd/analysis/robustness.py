"""Accuracy of a classifier on images that are noisy, blurred, pale or attacked.

The attacks are these few lines and no library's. At equal settings they are identical to captum.robust, ART, foolbox
and torchattacks. Captum's default threshold drops small gradients, as those in pixel units are, which weakens the
attack; the others bring pinned or unmaintained dependencies.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable

import torch
from torch import Tensor


def with_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of standard deviation ``sigma``, clipped to real pixels."""
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype).to(images.device)
    return (images + sigma * noise).clamp(0, 255)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of standard deviation ``sigma``, in pixels; the kernel reaches to three of it."""
    from torchvision.transforms.functional import gaussian_blur  # nothing else here needs torchvision

    reach = min(math.ceil(3 * sigma), min(images.shape[2:]) - 1)  # torchvision mirrors the border
    return gaussian_blur(images, 2 * reach + 1, sigma) if sigma > 0 else images


def with_contrast(images: Tensor, factor: float) -> Tensor:
    """Each image drawn towards its own mean: 1 leaves it as it is, 0 makes it plain."""
    means = images.mean((1, 2, 3), keepdim=True)
    return means + factor * (images - means)


def fgsm(logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """One step of ``epsilon`` along the sign of the loss's gradient (Goodfellow et al., 2015)."""
    return _stepped(images, epsilon, _direction(logits, images, labels))


def _stepped(images: Tensor, epsilon: float, direction: Tensor) -> Tensor:
    return (images + epsilon * direction).clamp(0, 255)


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
    """The sign of the cross-entropy's gradient.

    The cross-entropy is softplus(m), with m the log-sum-exp of the other logits less the label's. So m has a gradient
    of the same sign, which does not vanish by rounding where the network is sure.
    """
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        scores, target = logits(images), labels.unsqueeze(1)
        others = scores.scatter(1, target, -torch.inf).logsumexp(1)
        margins = (others - scores.gather(1, target).squeeze(1)).sum()
    return torch.autograd.grad(margins, images)[0].sign()


# How images are changed, by name: a function of network, images, labels, strength and generator.
CHANGES: dict[str, Callable[..., Tensor]] = dict(
    noise=lambda logits, images, labels, strength, generator: with_noise(images, strength, generator),
    blur=lambda logits, images, labels, strength, generator: blurred(images, strength),
    contrast=lambda logits, images, labels, strength, generator: with_contrast(images, strength),
    fgsm=lambda logits, images, labels, strength, generator: fgsm(logits, images, labels, strength),
    pgd=pgd,
)


@torch.no_grad()
def robust_accuracy(
    logits: Callable[[Tensor], Tensor],
    batches: Sequence[tuple[Tensor, Tensor]],
    strengths: Mapping[str, Sequence[float]],
    seed: int = 0,
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict[str, list[float]]:
    """Accuracy in % on changed images, for several kinds of change and strengths of each.

    Args:
        logits: Maps images (B, C, H, W) of pixel values, 0 to 255, to (B, K), differentiable.
        batches: Such images and their labels, on one device.
        strengths: By kind, the strengths to try: of 'noise' the standard deviation in pixel values, of 'blur' the
            standard deviation in pixels, of 'contrast' the factor, of 'fgsm' and 'pgd' the radius in the maximum norm
            in pixel values.
        seed: Of noise and random starts. Give the same to every network that is compared.
        progress: Wraps the list of what is measured, a pair of kind and strength each.

    Returns:
        For each kind one number for each strength.

    Source: FGSM of Goodfellow et al. (2015), PGD of Madry et al. (2018); noise, blur and contrast are among the
    corruptions of Hendrycks and Dietterich (ICLR 2019), at other strengths.
    """

    @functools.cache
    def direction(i: int) -> Tensor:
        return _direction(logits, *batches[i])

    result: dict[str, list[float]] = {kind: [] for kind in strengths}
    total = sum(len(labels) for _, labels in batches)
    for kind, strength in progress([(kind, strength) for kind, values in strengths.items() for strength in values]):
        generator = torch.Generator().manual_seed(seed)
        right = 0
        for i, (images, labels) in enumerate(batches):
            if kind == 'fgsm':  # one direction serves all strengths
                changed = _stepped(images, strength, direction(i))
            else:
                changed = CHANGES[kind](logits, images, labels, strength, generator)
            right += int((logits(changed).argmax(1) == labels).sum())
        result[kind].append(100 * right / total)
    return result
