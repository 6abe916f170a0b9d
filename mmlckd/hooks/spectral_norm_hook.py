"""Lipschitz values while training: logged, kept, drawn, and bounded where asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmengine.dist import master_only
from mmengine.hooks import Hook

from mmlckd.registry import HOOKS
from mmlckd.unwrapped import unwrapped

from .checks import check_count, check_only_one
from .layer_reader import LayerReader
from .loss_statistics import read_statistics
from .norm_history import write_history


@HOOKS.register_module()
class SpectralNormHook(Hook):
    """Publish, and bound where asked, how strongly a network stretches its input while it is trained.

    At the first iteration, at every ``interval``-th and at the last, these go to the message hub, and so to every
    visualizer backend:

    - of a distiller, for each pair k of its Lipschitz loss, ``lipschitz/student_k`` and ``lipschitz/teacher_k`` (batch
      means of the transmitting norms as the loss last computed them) and ``lipschitz/log_ratio_k`` (batch mean of
      log(student / teacher));
    - for each selected layer, ``lipschitz/layer/<name>``, its operator norm at its real input size.

    The history and the layers' input sizes are part of the checkpoint. The singular vectors are not, because they are
    as large as those inputs: after a checkpoint the norms are found anew, in the uninterrupted run as in the resumed
    one. A run may be resumed with other losses, taps or layers; the figures then show the present ones. At the end of
    training the history is written to ``lipschitz.json``, ``lipschitz.png`` and
    ``lipschitz_layers.png`` in the work folder, and the visualizer shows the pictures. The hook works with any model of
    MMEngine.

    Args:
        interval: Iterations between two readings. A reading waits for the device once.
        layers: Regular expressions over module names. They select convolutions and linear layers of the trained model.
            None: no layer.
        num_iters: Iterations of a layer's norm at a reading, at least 2. Each reading goes on where the one before
            ended. The first one, and the first after a checkpoint, converge.
        fold_norms: Take the batch norm behind a layer as part of it, with its running variance.
        max_norm: Upper bound of the selected layers' norms, except frozen ones. A reading scales each layer above it
            back, as far as ``num_iters`` iterations see, and the last reading by a converged estimate. Between two
            readings the training steps may carry a norm above the bound. An average of the weights (EMA) follows.

    Raises:
        ValueError: An argument is out of range, the expressions select nothing, or the run has a second such hook; or,
            with ``max_norm``, they select a layer that does not run in the first iteration, or whose norm does not
            follow its weight.

    Source: this project; ``LayerReader`` says whose projection it is.
    """

    priority = 'ABOVE_NORMAL'  # before EMA and LoggerHook
    SCALARS = 'train/lipschitz/'
    HISTORY = 'lipschitz_history'
    SIZES = 'lipschitz_layer_sizes'

    def __init__(
        self,
        interval: int = 50,
        layers: None | str | Sequence[str] = None,
        num_iters: int = 2,
        fold_norms: bool = False,
        max_norm: float | None = None,
    ):
        check_count('SpectralNormHook.interval', interval)
        if num_iters < 2:
            raise ValueError(
                f'SpectralNormHook.num_iters is {num_iters}: give at least 2, since one finds the same vector again'
            )
        if max_norm is not None and (layers is None or not 0 < max_norm < math.inf):
            raise ValueError(
                f'SpectralNormHook.max_norm is {max_norm} and layers {layers!r}: '
                'a bound is a positive number and needs layers to hold to it'
            )
        self.interval = interval
        self.layers = layers
        self.num_iters = num_iters
        self.fold_norms = fold_norms
        self.max_norm = max_norm
        self._reader: LayerReader | None = None

    def before_train(self, runner) -> None:
        check_only_one(self, runner, 'give one with all layers, in default_hooks.spectral_norm or in custom_hooks')
        self._watched = False
        if self.layers is not None:
            self._reader = LayerReader(
                unwrapped(runner.model), self.layers, self.num_iters, self.fold_norms, self.max_norm
            )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if self._reader is not None and not self._watched:  # not before: an evaluation may come first in a resumed run
            self._reader.watch(runner.message_hub.runtime_info.get(self.SIZES, {}))
            self._watched = True

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self._reader is not None and self._reader.is_watching:
            runner.message_hub.update_info(self.SIZES, self._reader.settle())
        last = self.is_last_train_iter(runner)
        if runner.iter == 0 or last or self.every_n_train_iters(runner, self.interval):
            self._read(runner, last)

    def _read(self, runner, last: bool) -> None:
        hub = runner.message_hub
        statistics = read_statistics(unwrapped(runner.model))
        reading: dict[str, list | dict] = {**statistics}
        scalars = {f'{name}_{k}': value for name, values in statistics.items() for k, value in enumerate(values)}
        if self._reader is not None:
            norms = reading['layers'] = self._reader.read(last)
            scalars.update({f'layer/{name}': value for name, value in norms.items()})
        for key in [key for key in hub.log_scalars if key.startswith(self.SCALARS)]:
            if key.removeprefix(self.SCALARS) not in scalars:
                del hub.log_scalars[key]  # of other losses, taps or layers, with which the run began
        for name, value in scalars.items():
            hub.update_scalar(self.SCALARS + name, value)
        if reading:
            hub.update_info(self.HISTORY, [*self.history(runner), dict(iter=runner.iter + 1, **reading)])

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self._reader is not None:
            self._reader.forget()

    @master_only
    def after_train(self, runner) -> None:
        history = self.history(runner)
        if history:
            write_history(runner, history, self.max_norm)

    def history(self, runner) -> list[dict]:
        """The readings so far, oldest first."""
        return list(runner.message_hub.runtime_info.get(self.HISTORY, []))
