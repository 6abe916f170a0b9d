"""Lipschitz values while training: logged, kept, drawn, and bounded where asked."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from mmcv import imread
from mmengine.dist import broadcast, broadcast_object_list, master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import nn

from mmlckd.analysis.layer_norms import LayerNorms
from mmlckd.distillers import entries_of
from mmlckd.registry import HOOKS
from mmlckd.unwrapped import unwrapped


@HOOKS.register_module()
class SpectralNormHook(Hook):
    """Publish, and bound where asked, how strongly a network stretches its input while it is trained.

    Every ``interval`` iterations, at the first and at the last, these go to the message hub, and so to every visualizer backend:

    - of a distiller, for each pair k of its Lipschitz loss, ``lipschitz/student_k`` and ``lipschitz/teacher_k`` (batch means of the
      transmitting norms as the loss last computed them) and ``lipschitz/log_ratio_k`` (batch mean of log(student / teacher));
    - for each selected layer, ``lipschitz/layer/<name>``, its operator norm at its real input size.

    The history and the layers' input sizes are part of the checkpoint; the singular vectors, which are as large as those inputs, are not:
    after a checkpoint norms are found anew, in the uninterrupted run as in the resumed one. At the end of training the history is
    written to ``lipschitz.json``, ``lipschitz.png`` and ``lipschitz_layers.png`` in the work folder, and the pictures go to the
    visualizer. The hook works with any model of MMEngine.

    Args:
        interval: Iterations between two readings; the device is waited for once a reading.
        layers: Regular expressions over module names that select convolutions and linear layers of the trained model. None: no layer.
        num_iters: Iterations of a layer's norm at a reading, at least 2; each reading goes on where the one before ended. The first one,
            and the first after a checkpoint, converge.
        fold_norms: Take the batch norm behind a layer as part of it, with its running variance.
        max_norm: Upper bound of the selected layers' norms, but for frozen ones. At each reading a layer above it is scaled back to it, as
            far as ``num_iters`` iterations see, and at the last one by a converged estimate; between two readings ``interval`` steps may
            carry it above. An average of the weights (EMA) follows.

    Raises:
        ValueError: An argument is out of range, or the expressions select nothing; or, with ``max_norm``, they select a layer that does not
            run in the first iteration, or whose norm does not follow its weight.

    Source: this project. The projection is that of Gouk et al., Regularisation of neural networks by enforcing Lipschitz continuity (2021).
    """

    priority = 'ABOVE_NORMAL'  # before EMA and LoggerHook
    HISTORY = 'lipschitz_history'
    SIZES = 'lipschitz_layer_sizes'
    MARGIN = 1e-3  # the projection aims this much below the bound, above the error of an estimate

    def __init__(
        self,
        interval: int = 50,
        layers: None | str | Sequence[str] = None,
        num_iters: int = 2,
        fold_norms: bool = False,
        max_norm: float | None = None,
    ):
        if interval < 1:
            raise ValueError(f'SpectralNormHook.interval is {interval}: give at least 1 iteration')
        if num_iters < 2:
            raise ValueError(
                f'SpectralNormHook.num_iters is {num_iters}: at least 2 are needed, since one finds the same vector again'
            )
        if max_norm is not None and (max_norm <= 0 or layers is None):
            raise ValueError(
                f'SpectralNormHook.max_norm is {max_norm} and layers {layers!r}: '
                'a bound is positive and needs layers to hold to it'
            )
        self.interval = interval
        self.layers = layers
        self.num_iters = num_iters
        self.fold_norms = fold_norms
        self.max_norm = max_norm
        self._norms: LayerNorms | None = None
        self._watching: ExitStack | None = None

    def before_train(self, runner) -> None:
        if self.layers is not None:
            self._norms = LayerNorms(unwrapped(runner.model), self.layers, self.fold_norms)
            self._norms.shapes.update(
                runner.message_hub.runtime_info.get(self.SIZES, {})
            )  # a resumed run's first batch may be of others
            self._watching = ExitStack()
            self._watching.enter_context(self._norms.watch())

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self._watching is not None:
            self._stop_watching(runner)
        last = self.is_last_train_iter(runner)
        if runner.iter > 0 and not self.every_n_train_iters(runner, self.interval) and not last:
            return
        reading = read_statistics(unwrapped(runner.model))
        for name, values in reading.items():
            for k, value in enumerate(values):
                runner.message_hub.update_scalar(f'train/lipschitz/{name}_{k}', value)
        if self._norms is not None:
            reading['layers'] = self._read_layers(last)
            for name, value in reading['layers'].items():
                runner.message_hub.update_scalar(f'train/lipschitz/layer/{name}', value)
        if reading:
            runner.message_hub.update_info(self.HISTORY, [*self.history(runner), dict(iter=runner.iter + 1, **reading)])

    def _stop_watching(self, runner) -> None:
        """After the first iteration: all ranks take the first one's sizes, or they would scale their weights differently."""
        self._watching.close()
        self._watching = None
        shared = [(self._norms.shapes, self._norms.folded)]
        broadcast_object_list(shared)
        self._norms.shapes, self._norms.folded = shared[0]
        runner.message_hub.update_info(self.SIZES, self._norms.shapes)
        unseen = [name for name in self._norms.layers if name not in self._norms.shapes]
        if unseen:
            found = f'layers is {self.layers!r} and selects {unseen[0]!r}{f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""}'
            if self.max_norm is not None:
                raise ValueError(
                    f'{found}, not run in the first iteration, so that max_norm cannot hold there: select without them'
                )
            print_log(f'{found}, not run in the first iteration: no norm is read there', 'current', logging.WARNING)

    def _read_layers(self, last: bool) -> dict[str, float]:
        settle = not self._norms.vectors or last and self.max_norm is not None
        norms = self._norms.measure(None if settle else self.num_iters)
        if self.max_norm is not None:
            broadcast(norms)
            target = self.max_norm * (1 - self.MARGIN)
            self._norms.scale(torch.where(norms > target, target / norms, 1.0))
            norms = self._norms.measure(1)  # one iteration reads the norm at the vector just found: what became of it
        reading = dict(zip(self._norms.names, norms.tolist()))
        for name, value in reading.items():
            if self.max_norm is not None and value > 1.01 * self.max_norm and self._norms.is_trained(name):
                raise ValueError(
                    f'max_norm is {self.max_norm} and {name!r} has norm {value:.3g} after its weight was scaled to that: it '
                    'normalises or parametrises its weight, so select layers without it'
                )
        return reading

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self._norms is not None:
            self._norms.vectors.clear()  # so that the next reading is that of a resumed run

    @master_only
    def after_train(self, runner) -> None:
        history = self.history(runner)
        if history:
            from mmlckd.analysis import plot_history, plot_layers  # matplotlib is needed here only

            folder = Path(runner.work_dir)
            (folder / 'lipschitz.json').write_text(json.dumps(history, indent=1) + '\n')
            if 'student' in history[0]:
                plot_history(history, folder / 'lipschitz.png', pair_names(unwrapped(runner.model)))
            if self._norms is not None:
                plot_layers(history, folder / 'lipschitz_layers.png', self.max_norm)
            for path in sorted(folder.glob('lipschitz*.png')):
                runner.visualizer.add_image(path.stem, imread(path, channel_order='rgb'), step=runner.iter)
                runner.logger.info(f'Lipschitz values over training: {path}')

    def history(self, runner) -> list[dict]:
        """The readings so far, oldest first."""
        return list(runner.message_hub.runtime_info.get(self.HISTORY, []))


def read_statistics(model: nn.Module) -> dict[str, list[float]]:
    """What the losses of a distilled student have to tell of the last batch, by name; one wait for the device."""
    found: dict[str, list[torch.Tensor]] = {}
    for entry in entries_of(model):
        for name, values in entry.statistics().items():
            found.setdefault(name, []).append(values)
    joined = {name: torch.cat(values) for name, values in found.items()}
    if not joined:
        return {}
    numbers = torch.cat(list(joined.values())).tolist()
    return {name: [numbers.pop(0) for _ in values] for name, values in joined.items()}


def pair_names(model: nn.Module) -> list[str]:
    """The titles of those values in the figure: the taps between which they are."""
    names = []
    for entry in entries_of(model):
        if entry.statistics():
            paths = [tap.module.removeprefix('backbone.') for tap in entry.student_taps]
            names += [f'{before} to {after}' for before, after in zip(paths, paths[1:])]
    return names
