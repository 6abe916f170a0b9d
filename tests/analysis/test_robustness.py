"""Attacks on a linear classifier, where their effect is known."""

from __future__ import annotations

import pytest
import torch

from mmlckd.analysis import robust_accuracy
from mmlckd.analysis.robustness import fgsm, pgd, with_noise

WEIGHT = torch.tensor([[1.0, -2.0, 0.5, 1.0], [-1.0, 1.0, 0.0, 0.5]])


def logits(images):
    return images.flatten(1) @ WEIGHT.T


def case(margin):
    """An image of class 0, of pixel values around 100, whose logits differ by ``margin``."""
    difference = WEIGHT[0] - WEIGHT[1]  # 2, -3, 0.5, 0.5: no difference on equal pixels
    return (100 + margin * difference / difference.square().sum()).view(1, 1, 2, 2), torch.tensor([0])


@pytest.mark.parametrize('attack', [fgsm, lambda *args: pgd(*args, torch.Generator().manual_seed(0))])
def test_an_attack_takes_the_margin_times_the_sum_of_weights(attack):
    # In the maximum norm a linear margin falls by epsilon * |w_0 - w_1|_1, here epsilon * (2 + 3 + 0.5 + 0.5).
    image, label = case(margin=6.0)
    critical = 6 / 6
    assert logits(attack(logits, image, label, 0.98 * critical)).argmax() == 0
    assert logits(attack(logits, image, label, 1.02 * critical)).argmax() == 1


def test_changes_stay_in_their_ball_and_among_real_pixels():
    image, label = case(6.0)
    for attacked in (fgsm(logits, image, label, 3.0), pgd(logits, image, label, 3.0, torch.Generator().manual_seed(0))):
        assert (attacked - image).abs().max() <= 3 * (1 + 1e-5)
    for changed in (with_noise(image, 1000.0, torch.Generator().manual_seed(0)), fgsm(logits, image, label, 1000.0)):
        assert changed.min() == 0 and changed.max() == 255
    assert torch.equal(with_noise(image, 0.0, torch.Generator()), image)


def test_noise_has_its_size_and_is_the_same_for_every_network():
    images = torch.full((1, 1, 200, 200), 100.0)
    one, other = (with_noise(images, 10.0, torch.Generator().manual_seed(5)) for _ in range(2))
    # of 40,000 draws the deviation scatters by 1 / sqrt(80,000) = 0.35 %
    assert torch.equal(one, other) and one.std().item() == pytest.approx(10, rel=0.02)


def test_accuracies():
    batches = [case(margin) for margin in (1.5, 6.0, -0.5)]  # the third is wrong from the start
    cells = []
    result = robust_accuracy(
        logits, batches, sigmas=[0.0], epsilons=[0.5, 2.0], progress=lambda items: cells.extend(items) or items
    )
    assert result['noise'] == [pytest.approx(200 / 3)]
    assert result['fgsm'] == result['pgd'] == [pytest.approx(100 / 3), 0.0]  # margins fall by 6 * 0.5 = 3, and by 12
    assert cells == [('noise', 0.0), ('fgsm', 0.5), ('fgsm', 2.0), ('pgd', 0.5), ('pgd', 2.0)]
