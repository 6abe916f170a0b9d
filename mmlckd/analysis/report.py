"""What is known about the Lipschitz constants of a trained network, as one nested dict of numbers."""

from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

import torch
from torch import Tensor, nn

from .layer_norms import LayerNorms
from .local_lipschitz import local_lipschitz
from .product_bound import product_bound
from .profile import transmitting_profile
from .robustness import PixelBox, robust_accuracy


class Options(NamedTuple):
    """How far an analysis goes."""

    num_iters: int = 20
    sigmas: Sequence[float] = (0., 8., 16., 32., 64.)
    epsilons: Sequence[float] = (1., 2., 4., 8.)
    seed: int = 0
    progress: Callable[[Sequence, str], Sequence] = lambda items, title: items


def analyze(model: nn.Module, batches: List[dict], taps: Optional[Sequence], input_shape: Sequence[int], options: Options) -> Dict:
    """Everything this package can say about one network.

    Args:
        model: A classifier, detector or segmentor of OpenMMLab, its weights loaded. Of the last two the backbone is analysed.
        batches: What its test data loader yields.
        taps: Taps of the transmitting norms; None leaves them out.
        input_shape: (C, H, W) of the taps' dry run.
        options: See :class:`Options`.

    Returns:
        'parameters'; 'pairs', a list of image-wise norms a pair; 'layers', by name 'operator_norm', 'reshaped_norm' (of the kernel
        as a matrix, which is not the operator's) and 'stable_rank' (squared Frobenius over squared spectral norm of that matrix);
        'local', sigma_max of the Jacobian at each image, in output units per unit of normalised input; 'bound' and 'unbounded' of
        :func:`product_bound`; for classifiers 'robustness'.
    """
    model.eval()
    classifier = type(model).__name__ == 'ImageClassifier'
    part = model if classifier else model.backbone
    prepared = [model.data_preprocessor(batch, False) for batch in batches]
    images = [data['inputs'].float() for data in prepared]

    def function(x: Tensor) -> Tensor:
        return model(x, mode='tensor') if classifier else model.backbone(x)[-1]

    result = dict(of='logits' if classifier else 'last map of the backbone')
    result['parameters'] = sum(weight.numel() for weight in model.parameters())
    if taps is not None:
        result['pairs'] = transmitting_profile(model, batches, taps, input_shape).tolist()
    result['layers'] = _layers(part, lambda: function(images[0][:1]), options.num_iters)
    result['local'] = torch.cat([local_lipschitz(function, batch, options.num_iters)
                                 for batch in options.progress(images, 'Jacobians')]).tolist()
    bound = product_bound(part, lambda: function(images[0][:1]))
    result.update(bound=bound.value, unbounded=bound.unbounded)
    if classifier:
        labels = [torch.cat([sample.gt_label for sample in data['data_samples']]) for data in prepared]
        preprocessor = model.data_preprocessor
        ones = torch.ones(images[0].shape[1], 1, 1, device=images[0].device)
        normalize = getattr(preprocessor, '_enable_normalize', False)
        box = PixelBox(*((preprocessor.mean * ones, preprocessor.std * ones) if normalize else (0 * ones, ones)))
        result['robustness'] = robust_accuracy(function, list(options.progress(list(zip(images, labels)), 'noise and attacks')), box,
                                               options.sigmas, options.epsilons, options.seed)
    return result


def _layers(part: nn.Module, forward: Callable[[], object], num_iters: int) -> Dict[str, Dict[str, float]]:
    norms = LayerNorms(part, '')
    with norms.watch(), torch.no_grad():
        forward()
    rows = {}
    for name, value in zip(norms.names, norms.measure(max(num_iters, 30)).tolist()):
        matrix = norms.layers[name].weight.detach().flatten(1)
        reshaped = torch.linalg.matrix_norm(matrix, 2)
        stable_rank = matrix.square().sum() / reshaped.square()
        rows[name] = dict(operator_norm=value, reshaped_norm=reshaped.item(), stable_rank=stable_rank.item())
    return rows
