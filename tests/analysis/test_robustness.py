"""Attacks on a linear classifier, where their effect is known."""

from __future__ import annotations

import math

import pytest
import torch

from mmlckd.analysis import robust_accuracy
from mmlckd.analysis.calibration import expected_calibration_error
from mmlckd.analysis.robustness import blurred, fgsm, pgd, with_contrast, with_noise

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


@pytest.mark.parametrize('scale', [1.0, 10.0, 1000.0])
@pytest.mark.parametrize('attack', [fgsm, lambda *args: pgd(*args, torch.Generator().manual_seed(0))])
def test_a_network_is_no_more_robust_for_being_sure(attack, scale):
    """Where the label's probability is 1 in float32, the cross-entropy has no gradient."""
    image, label = case(margin=6.0)
    assert logits(attack(lambda images: scale * logits(images), image, label, 1.02)).argmax() == 1


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
    strengths = dict(noise=[0.0], fgsm=[0.5, 2.0], pgd=[0.5, 2.0])
    result = robust_accuracy(logits, batches, strengths, progress=lambda items: cells.extend(items) or items)
    assert result['noise'] == [pytest.approx(200 / 3)]
    assert result['fgsm'] == result['pgd'] == [pytest.approx(100 / 3), 0.0]  # margins fall by 6 * 0.5 = 3, and by 12
    assert cells == [('noise', 0.0), ('fgsm', 0.5), ('fgsm', 2.0), ('pgd', 0.5), ('pgd', 2.0)]


def test_one_gradient_of_fgsm_serves_all_strengths():
    derived = []

    def watched(images):
        derived.append(images.requires_grad)
        return logits(images)

    robust_accuracy(watched, [case(6.0), case(1.5)], dict(fgsm=[0.5, 2.0, 4.0]))
    assert derived.count(True) == 2 and derived.count(False) == 6


@pytest.mark.parametrize('sigma', [0.4, 1.0, 3.0])
def test_a_blur_spreads_a_point_as_a_gaussian(sigma):
    image = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    image[..., 20, 20] = 100
    rows = torch.arange(-20, 21, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (rows / sigma) ** 2).outer(torch.exp(-0.5 * (rows / sigma) ** 2))
    # cut at three sigma the kernel lacks exp(-4.5), 1.1 %, of its peak at most
    torch.testing.assert_close(blurred(image, sigma)[0, 0], 100 * kernel / kernel.sum(), atol=0.012 * 100, rtol=0.02)
    assert blurred(image, sigma).sum().item() == pytest.approx(100)
    assert blurred(image, 0.0) is image


def test_a_blur_wider_than_the_image_still_works():
    assert blurred(torch.rand(2, 3, 4, 6), 8.0).shape == (2, 3, 4, 6)


def test_contrast_draws_each_image_to_its_own_mean():
    images = torch.tensor([[0.0, 10.0], [100.0, 200.0]]).view(2, 1, 1, 2)
    assert with_contrast(images, 0.5).flatten().tolist() == [2.5, 7.5, 125.0, 175.0]
    assert torch.equal(with_contrast(images, 1.0), images)


def test_calibration_error_by_hand():
    def logits(probability):
        return torch.tensor([[probability, 1 - probability]]).log()

    # two at 0.9, one of them right: 0.4 off; one at 0.6, right: 0.4 off. Weighted: (2 * 0.4 + 0.4) / 3
    rows = torch.cat([logits(0.9), logits(0.9), logits(0.6)])
    assert expected_calibration_error(rows, torch.tensor([0, 1, 0])) == pytest.approx(40, abs=1e-4)
    # of a bin's ten at 0.9 nine are right: none
    assert expected_calibration_error(logits(0.9).repeat(10, 1), torch.tensor([0] * 9 + [1])) == pytest.approx(
        0, abs=1e-4
    )
    sure = torch.tensor([[1000.0, 0.0]])
    assert expected_calibration_error(sure, torch.tensor([1])) == 100


def test_calibration_of_a_network_that_is_lost():
    assert math.isnan(expected_calibration_error(torch.tensor([[torch.nan, 0.0], [1.0, 2.0]]), torch.tensor([0, 1])))
