"""The Lipschitz profile of a network on given images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from mmlckd.functional import transmitting_norm
from mmlckd.taps import FeatureTap, dry_run, parse_taps

from .evaluating import evaluating


@torch.no_grad()
def transmitting_profile(
    model: nn.Module, batches: Iterable[dict], taps: str | Sequence, input_shape: Sequence[int], center: bool = True
) -> Tensor:
    """Transmitting norms of consecutive taps, image by image, in evaluation mode.

    Args:
        model: A network of OpenMMLab, its weights loaded.
        batches: What its test data loader yields.
        taps: Module paths or tap dicts, shallow to deep, or the name of a preset.
        input_shape: (C, H, W) of the dry run that looks for maps overwritten in place.
        center: As in :func:`mmlckd.functional.transmitting_norm`.

    Returns:
        (pairs, images), on the CPU, in squared feature units. Not differentiable.

    Source: LONDON (Shang et al., ICCV 2021), the transmitting matrix.
    """
    taps = parse_taps(taps, model, 'model')
    run = dry_run(model, taps, input_shape, 'model')
    columns = []
    with evaluating(model):
        for batch in batches:
            data = model.data_preprocessor(batch, False)
            with FeatureTap(model, taps, run.last_calls, run.overwritten) as feats:  # ends at the deepest tap
                model(**data, mode='tensor')
            maps = [feats[tap] for tap in taps]
            norms = [transmitting_norm(before, after, center=center) for before, after in zip(maps, maps[1:])]
            columns.append(torch.stack(norms).cpu())
    return torch.cat(columns, dim=1)
