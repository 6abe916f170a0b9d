"""Accuracy of a classifier under noise and under attack."""

from typing import Callable, Dict, List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PixelBox:
    """Images as a network takes them, (x - mean) / std, and what a change of pixel values in 0 to 255 is there.

    Args:
        mean, std: (C, 1, 1), of pixel values.
    """

    def __init__(self, mean: Tensor, std: Tensor):
        self.std = std
        self.low, self.high = -mean / std, (255 - mean) / std

    def clip(self, images: Tensor) -> Tensor:
        return images.clamp(self.low, self.high)


def with_noise(images: Tensor, sigma: float, box: PixelBox, generator: torch.Generator) -> Tensor:
    """Gaussian noise of standard deviation ``sigma`` pixel values, clipped to real pixels."""
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype).to(images.device)
    return box.clip(images + sigma / box.std * noise)


def fgsm(logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, epsilon: float, box: PixelBox) -> Tensor:
    """One step of ``epsilon`` pixel values along the sign of the loss's gradient (Goodfellow et al., 2015)."""
    return box.clip(images + epsilon / box.std * _direction(logits, images, labels))


def pgd(logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, epsilon: float, box: PixelBox, generator: torch.Generator,
        steps: int = 10) -> Tensor:
    """Steps of ``epsilon`` / 4 from a random start, each back into the box of +-``epsilon`` (Madry et al., 2018)."""
    radius = epsilon / box.std
    start = 2 * torch.rand(images.shape, generator=generator, dtype=images.dtype).to(images.device) - 1
    attacked = box.clip(images + radius * start)
    for _ in range(steps):
        attacked = attacked + radius / 4 * _direction(logits, attacked, labels)
        attacked = box.clip(images + (attacked - images).clamp(-radius, radius))
    return attacked


def _direction(logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        loss = F.cross_entropy(logits(images), labels, reduction='sum')
    return torch.autograd.grad(loss, images)[0].sign()


@torch.no_grad()
def robust_accuracy(logits: Callable[[Tensor], Tensor],
                    batches: Sequence[Tuple[Tensor, Tensor]],
                    box: PixelBox,
                    sigmas: Sequence[float],
                    epsilons: Sequence[float],
                    seed: int = 0) -> Dict[str, List[float]]:
    """Accuracy in % under noise and attacks of several strengths.

    Args:
        logits: Maps images (B, C, H, W) to (B, K), differentiable.
        batches: Images and labels, on one device.
        box: Bounds of the images.
        sigmas: Standard deviations of Gaussian noise, in pixel values (0 to 255).
        epsilons: Radii of the attacks in the maximum norm, in pixel values.
        seed: Of noise and random starts, the same for every network that is compared.

    Returns:
        'noise', one number a sigma, 'fgsm' and 'pgd', one an epsilon.
    """
    def accuracy(change) -> float:
        right = sum((logits(change(images, labels)).argmax(1) == labels).sum().item() for images, labels in batches)
        return 100 * right / sum(len(labels) for _, labels in batches)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    def noise(sigma: float) -> float:
        draw = generator()
        return accuracy(lambda images, labels: with_noise(images, sigma, box, draw))

    def one_step(epsilon: float) -> float:
        return accuracy(lambda images, labels: fgsm(logits, images, labels, epsilon, box))

    def projected(epsilon: float) -> float:
        draw = generator()
        return accuracy(lambda images, labels: pgd(logits, images, labels, epsilon, box, draw))

    return dict(noise=[noise(sigma) for sigma in sigmas], fgsm=[one_step(epsilon) for epsilon in epsilons],
                pgd=[projected(epsilon) for epsilon in epsilons])
