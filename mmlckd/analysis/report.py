"""What is known about the Lipschitz constants of a trained network, as one nested dict of numbers."""

from functools import partial
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence

import torch
from torch import Tensor, nn

from mmlckd.distillers.feature_tap import parse_taps
from mmlckd.distillers.input_adapter import Preprocessing

from .evaluating import evaluating
from .layer_norms import LayerNorms
from .local_lipschitz import local_lipschitz
from .product_bound import product_bound
from .profile import transmitting_profile
from .robustness import robust_accuracy


class Options(NamedTuple):
    """How far an analysis goes."""

    num_iters: int = 20
    center: bool = True
    sigmas: Sequence[float] = (0., 8., 16., 32., 64.)
    epsilons: Sequence[float] = (1., 2., 4., 8.)
    seed: int = 0
    progress: Callable[[Sequence, str], Iterable] = lambda items, title: items


def analyze(model: nn.Module, batches: List[dict], taps: Optional[Sequence], input_shape: Sequence[int], options: Options) -> Dict:
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
        prepared = [model.data_preprocessor(batch, False) for batch in batches]
        first = prepared[0]['inputs'][:1].float()
        classifier = _is_classifier(model, first)
        part = model if classifier else model.backbone
        _, mean, std = Preprocessing.of(model.data_preprocessor)
        mean, std = (first.new_full((1, 1, 1), default) if value is None else value.to(first).view(-1, 1, 1)
                     for value, default in ((mean, 0.), (std, 1.)))

        def function(pixels: Tensor) -> Tensor:
            x = (pixels - mean) / std
            output = model(x, mode='tensor') if classifier else model.backbone(x)
            while not isinstance(output, Tensor):
                output = output[-1]
            return output

        result = dict(of='logits' if classifier else 'last map of the backbone', size=list(first.shape[2:]))
        result['parameters'] = sum(weight.numel() for weight in model.parameters())
        if taps is not None:
            taps = parse_taps(taps, model, 'model')
            result['taps'] = [str(tap) for tap in taps]
            result['pairs'] = transmitting_profile(model, batches, taps, input_shape, options.center).tolist()
        run_once = partial(part, first, **(dict(mode='tensor') if classifier else {}))
        result['layers'] = _layers(part, run_once)
        bound = product_bound(part, run_once)
        result.update(bound=None if bound.value is None else bound.value / std.min().item(), unbounded=bound.unbounded)
        images = [data['inputs'].float() * std + mean for data in prepared]
        result.update(_local(function, options.progress(images, 'Jacobians'), options.num_iters))
        labels = [sample.get('gt_label') for data in prepared for sample in data['data_samples']] if classifier else [None]
        if all(label is not None and label.numel() == 1 for label in labels):
            batches = list(zip(images, torch.cat(labels).split([len(batch) for batch in images])))
            result['robustness'] = robust_accuracy(function, batches, options.sigmas, options.epsilons, options.seed,
                                                   lambda cells: options.progress(cells, 'noise and attacks'))
    return result


def _is_classifier(model: nn.Module, image: Tensor) -> bool:
    """Whether it is an image classifier with one tensor of logits; by name, since a detector's run need not import mmpretrain."""
    if 'BaseClassifier' not in (kind.__name__ for kind in type(model).__mro__):
        return False
    with torch.no_grad():
        return isinstance(model(image, mode='tensor'), Tensor)


def _local(function: Callable[[Tensor], Tensor], batches: Iterable[Tensor], num_iters: int) -> Dict:
    try:
        return dict(local=torch.cat([local_lipschitz(function, images, num_iters) for images in batches]).tolist(), no_local=None)
    except RuntimeError as error:  # torch's, of an operation without forward-mode derivative, such as a deformable convolution
        return dict(local=None, no_local=str(error).splitlines()[0])


def _layers(part: nn.Module, forward: Callable[[], object]) -> Dict[str, Dict[str, float]]:
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
