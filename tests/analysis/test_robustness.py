"""Attacks on a linear classifier, where their effect is known."""

import pytest
import torch

from mmlckd.analysis import robust_accuracy
from mmlckd.analysis.robustness import PixelBox, fgsm, pgd, with_noise

WEIGHT = torch.tensor([[1., -2., 0.5, 1.], [-1., 1., 0., 0.5]])
MEAN, STD = torch.full((1, 1, 1), 100.), torch.full((1, 1, 1), 50.)
BOX = PixelBox(MEAN, STD)


def logits(images):
    return images.flatten(1) @ WEIGHT.T


def case(margin):
    """An image of class 0 whose logits differ by ``margin``."""
    difference = WEIGHT[0] - WEIGHT[1]
    return (margin * difference / difference.square().sum()).view(1, 1, 2, 2), torch.tensor([0])


@pytest.mark.parametrize('attack', [fgsm, lambda *args: pgd(*args, torch.Generator().manual_seed(0))])
def test_an_attack_takes_the_margin_times_the_sum_of_weights(attack):
    # In the maximum norm a linear margin falls by epsilon * |w_0 - w_1|_1, here epsilon / 50 * (2 + 3 + 0.5 + 0.5).
    image, label = case(margin=1.2)
    critical = 1.2 * 50 / 6
    assert logits(attack(logits, image, label, 0.98 * critical, BOX)).argmax() == 0
    assert logits(attack(logits, image, label, 1.02 * critical, BOX)).argmax() == 1


def test_changes_stay_in_their_ball_and_among_real_pixels():
    image, label = case(1.2)
    for attacked in (fgsm(logits, image, label, 3., BOX), pgd(logits, image, label, 3., BOX, torch.Generator().manual_seed(0))):
        assert ((attacked - image).abs() * STD).max() <= 3 * (1 + 1e-5)
    noisy = with_noise(image, 1000., BOX, torch.Generator().manual_seed(0)) * STD + MEAN
    assert noisy.min() >= -1e-3 and noisy.max() <= 255.001
    assert torch.equal(with_noise(image, 0., BOX, torch.Generator()), image)


def test_noise_has_its_size_and_is_the_same_for_every_network():
    images = torch.zeros(1, 1, 200, 200)
    one, other = (with_noise(images, 10., BOX, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, other) and (one * STD).std().item() == pytest.approx(10, rel=0.02)  # 40,000 draws: 0.35 % is one sigma


def test_accuracies():
    batches = [case(margin) for margin in (0.3, 1.2, -0.1)]  # the third is wrong from the start
    result = robust_accuracy(logits, batches, BOX, sigmas=[0.], epsilons=[5., 20.])
    assert result['noise'] == [pytest.approx(200 / 3)]
    assert result['fgsm'] == result['pgd'] == [pytest.approx(100 / 3), 0.]  # 0.3 falls to 5 / 50 * 6 = 0.6; both to 2.4
