"""One training of a study, and what is measured of it."""

from __future__ import annotations

import copy
import fcntl
import functools
import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from mmlckd.checkpoints import AtomicBackend, newest_checkpoint
from mmlckd.config import bare_config, is_distiller, read_config
from mmlckd.registry import MODELS, class_of
from mmlckd.resumability import make_resumable

from .measuring import curves, measure, steps

METHODS = dict(
    kd='KD',
    kd_views='KD on both views',
    ofd='OFD',
    ofd_views='OFD on both views',
    fsp='FSP',
    at='AT',
    lipschitz='Lipschitz',
    lipschitz_local='local Lipschitz',
)
# Fields of training loops, schedulers and hooks that are numbers of epochs or iterations.
_LENGTHS = {
    *('max_epochs', 'max_iters', 'val_interval', 'val_begin', 'begin', 'end', 'T_max', 'milestones', 'step_size'),
    *('periods', 'total_steps', 'total_iters', 'iters', 'epochs', 'begin_iter', 'begin_epoch', 'switch_epoch'),
    'num_last_epochs',
}
CHANGES = dict(long='twice as long')
LR = 'lr'  # the learning rate's name among the weights


def method_title(method: tuple[str, ...]) -> str:
    """The name of a method in tables: the names of its losses and changes."""
    if not any(name in METHODS for name in method):
        method = ('alone', *method)
    return ' + '.join({**CHANGES, **METHODS}.get(name, name) for name in method)


@functools.cache  # a study reads few recipes, hundreds of times
def _recipe(path: str) -> Config:
    return read_config(path)


def _wants_a_second_view(loss: dict) -> bool:
    made_for = getattr(class_of(loss['type'], MODELS), 'views', 'first')
    return (loss.get('views') or made_for) != 'first'


def _lengthen(config: Config, factor: int) -> None:
    """Train ``factor`` times as long, with schedules and hooks that are stretched alike."""
    if factor == 1:
        return
    schedulers = config.get('param_scheduler') or []
    hooks = config.get('custom_hooks') or []
    for fields in (config.train_cfg, *(schedulers if isinstance(schedulers, list) else [schedulers]), *hooks):
        for name in _LENGTHS & set(fields):
            value = fields[name]
            fields[name] = [factor * item for item in value] if isinstance(value, (list, tuple)) else factor * value


@dataclass(frozen=True)
class Cell:
    """A method on a data set, with a seed.

    Args:
        data: The data set's name.
        recipe: Path of a distillation config. It says everything else.
        method: Names of the distillation losses that are on, and of changes. Without losses the student learns alone.
        losses: Loss dicts by name. They replace the recipe's, or are added to them.
        weights: Loss weights by name, and the learning rate, where they differ from the recipe's.
        seed: The run's seed.
        selecting: Read the validation result only, and leave the test images alone.
        changes: By name, fields that are merged into the recipe, such as an augmentation. The field ``longer`` is a
            factor of the schedule's length.
    """

    data: str
    recipe: str
    method: tuple[str, ...]
    losses: dict[str, dict]
    weights: dict[str, float]
    seed: int
    selecting: bool = False
    changes: dict[str, dict] = field(default_factory=dict)

    def config(self) -> Config:
        """The recipe with the method's losses only, and its changes.

        Raises:
            FileNotFoundError, ValueError: There is no such recipe, it distils nothing, or it has no such loss.
        """
        config = copy.deepcopy(_recipe(self.recipe))
        if not is_distiller(config.get('model', {})):
            raise ValueError(
                f'{self.recipe} is no distillation config: a study needs one of type mmlckd.LipschitzDistiller'
            )
        for name in self.method:
            change = dict(self.changes.get(name, {}))
            _lengthen(config, change.pop('longer', 1))
            config.merge_from_dict(change)
        if LR in self.weights:
            config.optim_wrapper.optimizer.lr = self.weights[LR]
        config.model.losses = self._chosen_losses({**config.model.losses, **self.losses})
        hooks = config.get('custom_hooks') or []
        config.custom_hooks = [hook for hook in hooks if self._serves(hook, config.model.losses)]
        config.get('default_hooks', {}).pop('spectral_norm', None)
        if not any(_wants_a_second_view(loss) for loss in config.model.losses.values()):
            config.model.pop('view', None)
        if not config.model.losses:
            config = bare_config(config)
        config.randomness = dict(seed=self.seed)
        return config

    def _chosen_losses(self, known: dict[str, dict]) -> dict[str, dict]:
        """The method's losses with their weights."""
        chosen = {}
        for name in self.method:
            if name in self.changes:
                continue
            if known.get(name) is None:
                method = '+'.join(self.method)
                raise ValueError(
                    f'method {method!r} has the loss {name!r}, and {self.recipe} has {", ".join(known)}: '
                    'choose of these'
                )
            chosen[name] = dict(known[name])
            if name in self.weights:
                chosen[name]['loss_weight'] = self.weights[name]
        return chosen

    @staticmethod
    def _serves(hook: dict, losses: dict[str, dict]) -> bool:
        """Whether a hook of the recipe has something to do in a run with these losses."""
        kind = hook['type'].split('.')[-1]
        if kind == 'ConnectorWarmupHook':
            return any(loss.get('connectors') for loss in losses.values())
        return kind != 'LossWeightHook' or hook['loss'] in losses

    def digest(self) -> str:
        """The cell's name on the disk, without its seed. A cell with another config has another one."""
        text = json.dumps({**self.config().to_dict(), 'randomness': None}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def folder(self, work_dir: Path) -> Path:
        top = work_dir / 'selection' if self.selecting else work_dir
        return top / Path(self.recipe).stem / f'{"+".join(self.method) or "alone"}-{self.digest()}'

    def run(self, folder: Path, origin: dict) -> dict:
        """Train and measure, or go on where an earlier run stopped. At the end write the record and remove the weights.

        Args:
            folder: Where the record and the run's own files go.
            origin: What else goes into the record: commit, versions, machine.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / 'lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # cells of a study that was killed may still be running
            path, run_dir = folder / 'record.json', folder / 'run'
            if path.is_file():
                return json.loads(path.read_text())
            # Unformatted: yapf takes as long as ten steps, for every checkpoint and at every start.
            config = Config(self.config().to_dict(), format_python_code=False)
            config.work_dir = str(run_dir)
            last = newest_checkpoint(run_dir)
            if last:
                config.update(resume=True, load_from=last)
            make_resumable(config)
            runner = Runner.from_cfg(config)
            runner.train()
            record = dict(
                data=self.data,
                recipe=self.recipe,
                method=list(self.method),
                weights=self.weights,
                seed=self.seed,
                config=self.digest(),
                **origin,
                **steps(runner),
                validation=curves(runner)['validation'][-1],
                **({} if self.selecting else measure(runner)),
                curves=curves(runner),
            )
            AtomicBackend().put_text(json.dumps(record, indent=1) + '\n', path)
            shutil.rmtree(run_dir)
            return record
