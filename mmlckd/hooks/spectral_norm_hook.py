"""Lipschitz values while training: logged, kept, drawn, and bounded where asked."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import torch
from mmcv import imread
from mmengine.dist import broadcast, broadcast_object_list, master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from mmlckd.analysis.layer_norms import LayerNorms
from mmlckd.losses import LipschitzKDLoss
from mmlckd.registry import HOOKS


@HOOKS.register_module()
class SpectralNormHook(Hook):
    """Publish, and bound where asked, how strongly a network stretches its input while it is trained.

    Every ``interval`` iterations, at the first and at the last, these go to the message hub, and so to every visualizer backend:

    - of a distiller, for each pair k of its Lipschitz loss, ``lipschitz/student_k`` and ``lipschitz/teacher_k`` (batch means of the
      transmitting norms as the loss last computed them) and ``lipschitz/log_ratio_k`` (batch mean of log(student / teacher));
    - for each selected layer, ``lipschitz/layer/<name>``, its operator norm at its real input size.

    The history and the singular vectors are part of the checkpoint. At the end of training the history is written to
    ``lipschitz.json``, ``lipschitz.png`` and ``lipschitz_layers.png`` in the work folder, and the pictures go to the visualizer. The hook
    works with any model of MMEngine.

    Args:
        interval: Iterations between two readings; the device is waited for once a reading.
        layers: Regular expressions over module names that select convolutions and linear layers of the trained model. None: no layer.
        num_iters: Iterations of a layer's norm at a reading; each goes on where the one before ended.
        fold_norms: Take the batch norm behind a layer as part of it, with its running variance.
        max_norm: Upper bound of the selected layers' norms. At each reading a layer above it is scaled back to it, as far as ``num_iters``
            iterations see, and at the last one by a converged estimate; between two readings ``interval`` steps may carry it above.
            An average of the weights (EMA) follows.

    Raises:
        ValueError: An argument is out of range, or the expressions select nothing.

    Source: this project. The projection is that of Gouk et al., Regularisation of neural networks by enforcing Lipschitz continuity (2021).
    """

    priority = 'ABOVE_NORMAL'  # before EMA and LoggerHook
    HISTORY = 'lipschitz_history'
    MARGIN = 1e-3  # the projection aims this much below the bound, above the error of an estimate

    def __init__(self,
                 interval: int = 50,
                 layers: Union[None, str, Sequence[str]] = None,
                 num_iters: int = 2,
                 fold_norms: bool = False,
                 max_norm: Optional[float] = None):
        if interval < 1:
            raise ValueError(f'SpectralNormHook.interval is {interval}: give at least 1 iteration')
        if num_iters < 1:
            raise ValueError(f'SpectralNormHook.num_iters is {num_iters}: at least 1 is needed')
        if max_norm is not None and (max_norm <= 0 or layers is None):
            raise ValueError(f'SpectralNormHook.max_norm is {max_norm} and layers {layers!r}: '
                             'a bound is positive and needs layers to hold to it')
        self.interval = interval
        self.layers = layers
        self.num_iters = num_iters
        self.fold_norms = fold_norms
        self.max_norm = max_norm
        self._norms: Optional[LayerNorms] = None
        self._vectors: Dict[str, torch.Tensor] = {}
        self._watching: Optional[ExitStack] = None

    def before_train(self, runner) -> None:
        if self.layers is not None:
            self._norms = LayerNorms(_bare(runner.model), self.layers, self.fold_norms)
            self._norms.vectors = self._vectors
            self._watching = ExitStack()
            self._watching.enter_context(self._norms.watch())

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self._watching is not None:
            self._stop_watching()
        last = self.is_last_train_iter(runner)
        if runner.iter > 0 and not self.every_n_train_iters(runner, self.interval) and not last:
            return
        reading = read_norms(_bare(runner.model))
        for name, values in reading.items():
            for k, value in enumerate(values):
                runner.message_hub.update_scalar(f'train/lipschitz/{name}_{k}', value)
        if self._norms is not None:
            reading['layers'] = self._read_layers(50 if last and self.max_norm else self.num_iters)
            for name, value in reading['layers'].items():
                runner.message_hub.update_scalar(f'train/lipschitz/layer/{name}', value)
        if reading:
            runner.message_hub.update_info(self.HISTORY, [*self.history(runner), dict(iter=runner.iter + 1, **reading)])

    def _stop_watching(self) -> None:
        """After the first iteration: all ranks take the first one's sizes, or they would scale their weights differently."""
        self._watching.close()
        self._watching = None
        shared = [(self._norms.shapes, self._norms.folded)]
        broadcast_object_list(shared)
        self._norms.shapes, self._norms.folded = shared[0]

    def _read_layers(self, num_iters: int) -> Dict[str, float]:
        norms = self._norms.measure(num_iters)
        if self.max_norm is not None:
            broadcast(norms)
            target = self.max_norm * (1 - self.MARGIN)
            factors = torch.where(norms > target, target / norms, 1.)
            self._norms.scale(factors)
            norms = norms * factors
        return dict(zip(self._norms.names, norms.tolist()))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self._norms is not None:
            checkpoint['singular_vectors'] = dict(self._norms.vectors)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self._vectors = checkpoint.get('singular_vectors', {})

    @master_only
    def after_train(self, runner) -> None:
        history = self.history(runner)
        if history:
            from mmlckd.analysis import plot_history, plot_layers  # matplotlib is needed here only
            folder = Path(runner.work_dir)
            (folder / 'lipschitz.json').write_text(json.dumps(history, indent=1) + '\n')
            if 'student' in history[0]:
                plot_history(history, folder / 'lipschitz.png', [name for name, _, _ in pairs_of(_bare(runner.model))])
            if self._norms is not None:
                plot_layers(history, folder / 'lipschitz_layers.png', self.max_norm)
            for path in sorted(folder.glob('lipschitz*.png')):
                runner.visualizer.add_image(path.stem, imread(path, channel_order='rgb'), step=runner.iter)
                runner.logger.info(f'Lipschitz values over training: {path}')

    def history(self, runner) -> List[dict]:
        """The readings so far, oldest first."""
        return list(runner.message_hub.runtime_info.get(self.HISTORY, []))


def _bare(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def pairs_of(model: nn.Module) -> List[tuple]:
    """Name, student norms and teacher norms of every pair in a distiller's Lipschitz losses; norms of its last batch."""
    found = []
    for entry in getattr(model, 'entries', ()):
        if isinstance(entry.loss, LipschitzKDLoss):
            paths = [tap.module.removeprefix('backbone.') for tap in entry.student_taps]
            found += [(f'{before} to {after}', *norms) for before, after, norms in zip(paths, paths[1:], entry.loss.last_norms)]
    return found


def read_norms(model: nn.Module) -> Dict[str, List[float]]:
    """Batch means of those norms and of their log-ratio, by pair; empty where there are none."""
    pairs = pairs_of(model)
    if not pairs:
        return {}
    rows = [torch.stack([student.mean(), teacher.mean(), (student / teacher).log().mean()]) for _, student, teacher in pairs]
    student, teacher, log_ratio = torch.stack(rows, dim=1).tolist()
    return dict(student=student, teacher=teacher, log_ratio=log_ratio)
