"""What hooks check: the run that they are in, and the ranges of their arguments.

Types of arguments are checked by :mod:`mmlckd.validation`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from torch.optim import Optimizer


def check_count(field: str, value: int) -> None:
    """See that a field counts iterations.

    Raises:
        ValueError: It is below 1.
    """
    if value < 1:
        raise ValueError(f'{field} is {value}: give at least 1 iteration')


class RunLength(NamedTuple):
    """How long a training is, and what it is counted in. Known from ``before_train`` on.

    ``epochs`` is None in a loop over iterations: MMEngine calls such a run one epoch, so a hook that waits for
    epoch 1 would wait for ever.
    """

    iterations: int
    epochs: int | None

    @classmethod
    def of(cls, runner) -> RunLength:
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        return cls(runner.max_iters, runner.max_epochs if by_epoch else None)

    def check_times(self, field: str, times: Sequence[int], by_epoch: bool, remedy: str) -> None:
        """See that a hook's epochs, or iterations, come to pass; warn of those that lie behind the end.

        Args:
            field: What holds the times, for messages.
            times: Epochs or iterations, counted from 0.
            by_epoch: Whether they are epochs.
            remedy: What to do in a loop over iterations.

        Raises:
            ValueError: They are epochs, and the run has none.
        """
        if by_epoch and self.epochs is None:
            raise ValueError(
                f'{field} is {list(times)}, in epochs, and the run counts iterations ({self.iterations}): {remedy}'
            )
        length, unit = (self.epochs, 'epochs') if by_epoch else (self.iterations, 'iterations')
        late = [time for time in times if length is not None and time >= length]
        if late:
            print_log(
                f'{field} has {", ".join(map(str, late))}, and the run ends after {length} {unit}: these do nothing',
                'current',
                logging.WARNING,
            )


def check_only_one(hook: Hook, runner, remedy: str, same: Sequence[str] = ()) -> None:
    """See that a run has no second hook of this type.

    Args:
        same: Attributes that must be equal, too, for two hooks to be in each other's way.

    Raises:
        ValueError: It has one; ``remedy`` ends the message.
    """
    for other in runner.hooks:
        if other is hook or not isinstance(other, type(hook)):
            continue
        if all(getattr(other, name) == getattr(hook, name) for name in same):
            of = ''.join(f' with {name}={getattr(hook, name)!r}' for name in same)
            raise ValueError(f'the run has two hooks of type {type(hook).__name__}{of}: {remedy}')


def single_optimizer(hook: Hook, runner) -> Optimizer:
    """The run's only optimizer.

    Raises:
        ValueError: It has several.
    """
    wrapper = runner.optim_wrapper
    if not isinstance(wrapper, OptimWrapper):
        raise ValueError(
            f'{type(hook).__name__} works with one optimizer, and optim_wrapper is a {type(wrapper).__name__}: '
            'leave the hook out'
        )
    return wrapper.optimizer
