"""Transmitting norms while training: logged, kept, drawn."""

import json
from pathlib import Path
from typing import Dict, List

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmlckd.losses import LipschitzKDLoss
from mmlckd.registry import HOOKS


@HOOKS.register_module()
class SpectralNormHook(Hook):
    """Publish the student's and the teacher's transmitting norms, as the Lipschitz loss last computed them.

    Every ``interval`` iterations, and at the first, for each pair k: ``lipschitz/student_k`` and ``lipschitz/teacher_k``
    (batch means) and ``lipschitz/log_ratio_k`` (batch mean of log(student / teacher)) go to the message hub, and so to
    every visualizer backend. The history is part of the checkpoint. At the end of training it is written to
    ``lipschitz.json`` and ``lipschitz.png`` in the work folder. A run without a Lipschitz loss publishes nothing.

    Args:
        interval: Iterations between two readings; the device is waited for once a reading.

    Source: this project.
    """

    priority = 'NORMAL'  # before LoggerHook
    HISTORY = 'lipschitz_history'

    def __init__(self, interval: int = 50):
        if interval < 1:
            raise ValueError(f'interval is {interval}: give at least 1 iteration')
        self.interval = interval

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if runner.iter > 0 and not self.every_n_train_iters(runner, self.interval) and not self.is_last_train_iter(runner):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        reading = read_norms(model)
        if not reading:
            return
        for name, values in reading.items():
            for k, value in enumerate(values):
                runner.message_hub.update_scalar(f'train/lipschitz/{name}_{k}', value)
        history = [*self.history(runner), dict(iter=runner.iter + 1, **reading)]
        runner.message_hub.update_info(self.HISTORY, history)

    @master_only
    def after_train(self, runner) -> None:
        history = self.history(runner)
        if history:
            from mmlckd.analysis import plot_history  # matplotlib is needed here only
            folder = Path(runner.work_dir)
            (folder / 'lipschitz.json').write_text(json.dumps(history, indent=1) + '\n')
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            plot_history(history, folder / 'lipschitz.png', [name for name, _, _ in pairs_of(model)])
            runner.logger.info(f'Transmitting norms over training: {folder / "lipschitz.png"}')

    def history(self, runner) -> List[dict]:
        """The readings so far, oldest first."""
        return list(runner.message_hub.runtime_info.get(self.HISTORY, []))


def pairs_of(model: torch.nn.Module) -> List[tuple]:
    """Name, student norms and teacher norms of every pair in a distiller's Lipschitz losses; norms of its last batch."""
    found = []
    for entry in getattr(model, 'entries', ()):
        if isinstance(entry.loss, LipschitzKDLoss):
            paths = [tap.module.removeprefix('backbone.') for tap in entry.student_taps]
            found += [(f'{before} to {after}', *norms) for before, after, norms in zip(paths, paths[1:], entry.loss.last_norms)]
    return found


def read_norms(model: torch.nn.Module) -> Dict[str, List[float]]:
    """Batch means of those norms and of their log-ratio, by pair; empty where there are none."""
    pairs = pairs_of(model)
    if not pairs:
        return {}
    rows = [torch.stack([student.mean(), teacher.mean(), (student / teacher).log().mean()]) for _, student, teacher in pairs]
    student, teacher, log_ratio = torch.stack(rows, dim=1).tolist()
    return dict(student=student, teacher=teacher, log_ratio=log_ratio)
