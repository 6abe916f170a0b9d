"""The Lipschitz loss as its authors compute it and by singular value decomposition, and maps to compare them on."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mmlckd.functional.pooling import common_grid
from mmlckd.functional.sides import side_of
from mmlckd.functional.singular_pair import singular_pair
from mmlckd.functional.value_at_pair import value_at_pair


def authors_norm(feat_in, feat_out, num_iters=5):
    """sigma_max of the transmitting matrix as the authors compute it, (B,).

    K = M M^T is built, and its power iteration from ones is unrolled, with the gradient through every step (LONDON,
    ICCV 2021, as in their ImageNet code).
    """
    if feat_in.shape[2:] != feat_out.shape[2:]:
        feat_in = F.adaptive_avg_pool2d(feat_in, feat_out.shape[2:])
    feat_in, feat_out = feat_in.flatten(2), feat_out.flatten(2)
    matrix = torch.bmm(feat_in, feat_out.transpose(1, 2)) / feat_in.shape[-1]
    gram = torch.bmm(matrix, matrix.transpose(1, 2))
    vector = gram.new_ones(len(gram), gram.shape[1], 1)
    for _ in range(num_iters):
        vector = F.normalize(torch.bmm(gram, vector), dim=1)
    return torch.bmm(vector.transpose(1, 2), torch.bmm(gram, vector)).flatten().sqrt()


class KnownPair:
    """The value and the exact gradient at singular pairs that were found in an earlier call.

    What is left when the search costs nothing: each map is read, and its gradient is written.

    Args:
        form: Form the transmitting matrix too, once, as who searches in it must.
    """

    def __init__(self, form=False):
        self.form, self.pairs = form, {}

    def __call__(self, feat_in, feat_out):
        sides = [side_of(feat, common_grid(feat_in, feat_out), feat.dtype, False) for feat in (feat_in, feat_out)]
        key = feat_in.data_ptr(), feat_out.data_ptr()
        if key not in self.pairs:
            self.pairs[key] = singular_pair(sides[0].channels, sides[1].channels, 10, False, 0.0)
        if self.form:
            torch.bmm(sides[0].channels, sides[1].channels.mT)
        pair = self.pairs[key]
        seen = (side.seen(row, pair.finite) for side, row in zip(sides, (pair.left, pair.right)))
        return value_at_pair(*seen)


def exact_norm(feat_in, feat_out, center=False):
    """The same number in float64 by singular value decomposition: the truth to compare with."""
    feat_in, feat_out = feat_in.double(), feat_out.double()
    if feat_in.shape[2:] != feat_out.shape[2:]:
        feat_in = F.adaptive_avg_pool2d(feat_in, feat_out.shape[2:])
    feat_in, feat_out = feat_in.flatten(2), feat_out.flatten(2)
    if center:
        feat_in = feat_in - feat_in.mean(-1, keepdim=True)
    return torch.linalg.matrix_norm(feat_in @ feat_out.mT / feat_in.shape[-1], 2)


def lipschitz_loss(norm, student, teacher):
    """The authors' absolute squared distance with weights 1/8, 1/4, 1/2, the largest for the deepest pair."""
    total = 0.0
    for k in range(len(student) - 1):
        distance = norm(student[k], student[k + 1]) - norm(teacher[k], teacher[k + 1]).detach()
        total = total + 2.0 ** (k + 1 - len(student)) * distance.square().mean()
    return total


def step(norm, student, teacher):
    """The loss, forward and backward: the gradients of the student's maps."""
    return torch.autograd.grad(lipschitz_loss(norm, student, teacher), student)


def make_maps(shapes, batch, device, seed=0):
    """Smooth, rectified, correlated maps, like a network's features: a random deep stack applied to random images.

    ``shapes`` are pairs (channels, height = width).
    """
    generator = torch.Generator().manual_seed(seed)
    size = shapes[0][1]
    coarse = max(size // 4, 1)
    feat = F.interpolate(torch.randn(batch, 16, coarse, coarse, generator=generator), size=size, mode='bilinear')
    maps = []
    for channels, size in shapes:
        feat = F.adaptive_avg_pool2d(feat, size)
        mix = torch.randn(channels, feat.shape[1], generator=generator) / feat.shape[1] ** 0.5
        noise = 0.1 * torch.randn(batch, channels, size, size, generator=generator)
        feat = F.relu(torch.einsum('oc,bchw->bohw', mix, feat) + noise)
        maps.append(feat.contiguous().to(device))
    return maps


def student_and_teacher(shapes, batch, device):
    """Maps of two networks; the first ones take a gradient."""
    student, teacher = make_maps(shapes, batch, device, 0), make_maps(shapes, batch, device, 1)
    return [feat.requires_grad_() for feat in student], teacher
