"""What is known about the Lipschitz constants of a trained network, as one nested dict of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Callable, NamedTuple

import torch
from torch import Tensor, nn

from mmlckd.taps import parse_taps

from .evaluating import evaluating
from .layer_norms import LayerNorms
from .local_lipschitz import local_lipschitz
from .pixels import pixel_view
from .product_bound import product_bound
from .profile import transmitting_profile
from .robustness import robust_accuracy


class Options(NamedTuple):
    """How far an analysis goes."""

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
        model: A classifier, detector or segmentor of OpenMMLab, its weights loaded. Of the last two the backbone is analysed, and of
            classifiers whose output is not one tensor of logits.
        batches: What its test data loader yields.
        taps: Taps of the transmitting norms; None leaves them out.
        input_shape: (C, H, W) of the taps' dry run.
        options: See :class:`Options`.

    Returns:
        'of', what is analysed, and 'size', the (H, W) of the first image; 'parameters'; 'taps', their names, and 'pairs', a list of
        image-wise norms for each two neighbours; 'layers', by name 'operator_norm', 'reshaped_norm' (of the kernel as a matrix, which is
        not the operator's) and 'stable_rank' (squared Frobenius over squared spectral norm of that matrix; 0 of a zero matrix); 'local',
        sigma_max of the Jacobian at each image, None where torch cannot differentiate the network forward, for the reason in 'no_local';
        'bound', None where :func:`product_bound` has none, for the modules in 'unbounded', else at that size; for classifiers of images
        with one label each 'robustness'. Local constants and the bound are in output units per pixel value, 0 to 255.
    """
    with evaluating(model):
        view = pixel_view(model, batches)
        result = dict(
            of='logits' if view.classifier else 'last map of the backbone', size=list(view.images[0].shape[2:])
        )
        result['parameters'] = sum(weight.numel() for weight in model.parameters())
        if taps is not None:
            taps = parse_taps(taps, model, 'model')
            result['taps'] = [str(tap) for tap in taps]
            result['pairs'] = transmitting_profile(model, batches, taps, input_shape, options.center).tolist()
        run_once = partial(view.function, view.images[0][:1])
        result['layers'] = _layers(view.part, run_once)
        bound = product_bound(view.part, run_once)
        result.update(
            bound=None if bound.value is None else bound.value / view.std.min().item(), unbounded=bound.unbounded
        )
        result.update(_local(view.function, options.progress(view.images, 'Jacobians'), options.num_iters))
        if view.labels is not None:
            result['robustness'] = robust_accuracy(
                view.function,
                list(zip(view.images, view.labels)),
                options.sigmas,
                options.epsilons,
                options.seed,
                progress=lambda cells: options.progress(cells, 'noise and attacks'),
            )
    return result


def _local(function: Callable[[Tensor], Tensor], batches: Iterable[Tensor], num_iters: int) -> dict:
    try:
        return dict(
            local=torch.cat([local_lipschitz(function, images, num_iters) for images in batches]).tolist(),
            no_local=None,
        )
    except (
        RuntimeError
    ) as error:  # torch's, of an operation without forward-mode derivative, such as a deformable convolution
        return dict(local=None, no_local=str(error).splitlines()[0])


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
