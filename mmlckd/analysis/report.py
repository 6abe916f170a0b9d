"""What is known about the Lipschitz constants of a trained network, as one nested dict of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Callable, NamedTuple

import torch
from torch import Tensor, nn

from mmlckd.taps import parse_taps

from .evaluating import evaluating
from .layer_norms import LayerNorms
from .local_lipschitz import local_lipschitz
from .pixels import PixelView, pixel_view
from .product_bound import product_bound
from .profile import transmitting_profile
from .robustness import robust_accuracy


class Options(NamedTuple):
    """How far an analysis goes.

    Args:
        num_iters: Iterations of a Jacobian's norm.
        center: Whether transmitting norms are of centred maps.
        sigmas: Standard deviations of the noise, in pixel values.
        epsilons: Radii of the attacks, in pixel values.
        seed: Of noise and random starts.
        progress: Wraps a list that is worked through, given a title.
    """

    num_iters: int = 20
    center: bool = True
    sigmas: Sequence[float] = (0.0, 8.0, 16.0, 32.0, 64.0)
    epsilons: Sequence[float] = (1.0, 2.0, 4.0, 8.0)
    seed: int = 0
    progress: Callable[[Sequence, str], Iterable] = lambda items, title: items


def analyze(
    model: nn.Module, batches: list[dict], taps: Sequence | None, input_shape: Sequence[int], options: Options
) -> dict:
    """Everything this package can say about one network.

    Args:
        model: A classifier, detector or segmentor of OpenMMLab, its weights loaded. For the last two the backbone is
            analysed, and for classifiers whose output is not one tensor of logits.
        batches: What its test data loader yields.
        taps: Taps of the transmitting norms; None leaves them out.
        input_shape: (C, H, W) of the taps' dry run.
        options: See :class:`Options`.

    Returns:
        A dict that JSON can hold, with these keys.

        - 'of': what is analysed; 'size': the (H, W) of the first image; 'parameters': how many there are;
        - 'taps': their names; 'pairs': for each two neighbours the transmitting norms, image by image, in squared
          feature units;
        - 'layers': by name, 'operator_norm' in output units per input unit; 'reshaped_norm', of the kernel as a matrix,
          which is another norm; 'stable_rank', squared Frobenius over squared spectral norm of that matrix, 0 for a
          zero matrix;
        - 'local': sigma_max of the Jacobian at each image, in output units per pixel value (0 to 255); None where torch
          cannot differentiate the network forward, for the reason in 'no_local';
        - 'bound': the product bound in the same units, at the size above; None where :func:`product_bound` has none,
          because of the modules in 'unbounded';
        - 'robustness', for classifiers of images with one label each: accuracies in %.

    Source: this project.
    """
    with evaluating(model):
        view = pixel_view(model, batches)
        run_once = partial(view.function, view.images[0][:1])
        result: dict[str, Any] = dict(
            of='logits' if view.classifier else 'last map of the backbone',
            size=list(view.images[0].shape[2:]),
            parameters=sum(weight.numel() for weight in model.parameters()),
        )
        if taps is not None:
            taps = parse_taps(taps, model, 'model')
            result['taps'] = [str(tap) for tap in taps]
            result['pairs'] = transmitting_profile(model, batches, taps, input_shape, options.center).tolist()
        result['layers'] = _layers(view.part, run_once)
        result.update(_bound(view, run_once))
        result.update(_local(view.function, options.progress(view.images, 'Jacobians'), options.num_iters))
        if view.labels is not None:
            result['robustness'] = _robustness(view, view.labels, options)
    return result


def _layers(part: nn.Module, forward: Callable[[], object]) -> dict[str, dict[str, float]]:
    norms = LayerNorms(part, '')
    with norms.watch(), torch.no_grad():
        forward()
    rows = {}
    for name, value in zip(norms.names, norms.measure(None).tolist()):
        matrix = norms.layers[name].weight.detach().flatten(1)
        reshaped = torch.linalg.matrix_norm(matrix, 2)
        stable_rank = matrix.square().sum() / reshaped.square().clamp_min(torch.finfo(matrix.dtype).tiny)
        rows[name] = dict(operator_norm=value, reshaped_norm=reshaped.item(), stable_rank=stable_rank.item())
    return rows


def _bound(view: PixelView, forward: Callable[[], object]) -> dict:
    bound = product_bound(view.part, forward)
    if bound.value is None:
        return dict(bound=None, unbounded=bound.unbounded)
    return dict(bound=bound.value / view.std.min().item(), unbounded=[])


def _local(function: Callable[[Tensor], Tensor], batches: Iterable[Tensor], num_iters: int) -> dict:
    try:
        constants = [local_lipschitz(function, images, num_iters) for images in batches]
    except RuntimeError as error:  # torch's, of an operation without forward-mode derivative (deformable convolution)
        return dict(local=None, no_local=str(error).splitlines()[0])
    return dict(local=torch.cat(constants).tolist(), no_local=None)


def _robustness(view: PixelView, labels: list[Tensor], options: Options) -> dict[str, list[float]]:
    return robust_accuracy(
        view.function,
        list(zip(view.images, labels)),
        dict(noise=options.sigmas, fgsm=options.epsilons, pgd=options.epsilons),
        options.seed,
        progress=lambda cells: options.progress(cells, 'noise and attacks'),
    )
