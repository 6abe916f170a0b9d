"""Whether saved states of optimizers and schedulers are those of the present ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor
from torch.optim import Optimizer

from .plain_values import is_count, is_list_of, is_table_of, same_kind

# What of a scheduler's state moves in training, or follows from the optimizer's settings.
_PROGRESS = ('last_step', 'base_values', 'verbose', 'best', 'num_bad_epochs', 'cooldown_counter')


def optimizer_misfit(optim_wrapper: OptimWrapper | OptimWrapperDict, saved: Any) -> str | None:
    """How a checkpoint's ``optimizer`` differs from what the present one could load; None if it does not."""
    for subject, wrapper, state in _each(optim_wrapper, saved):
        fault = _state_misfit(wrapper.optimizer, state) or _settings_misfit(wrapper, state)
        if fault:
            return f'{subject} {fault}: resume with the optim_wrapper that wrote it'
    return None


def _each(optim_wrapper: OptimWrapper | OptimWrapperDict, saved: Any) -> Iterator[tuple[str, OptimWrapper, Any]]:
    if not isinstance(optim_wrapper, OptimWrapperDict):
        yield "its optimizer's state", optim_wrapper, saved
        return
    for name, wrapper in optim_wrapper.items():
        yield f'the state of its optimizer {name!r}', wrapper, saved.get(name) if isinstance(saved, dict) else None


def _state_misfit(optimizer: Optimizer, saved: Any) -> str | None:
    """What is wrong with what ``Optimizer.load_state_dict`` is given."""
    groups = saved.get('param_groups') if isinstance(saved, dict) else None
    state = saved.get('state') if isinstance(saved, dict) else None
    if not is_list_of(groups, _is_group) or not isinstance(state, dict):
        return 'is not what an optimizer saves'
    theirs, ours = ([len(group['params']) for group in each] for each in (groups, optimizer.param_groups))
    # torch fills in flags that an older version did not save, but no numbers
    needed = {name for name, value in optimizer.defaults.items() if not isinstance(value, (bool, type(None)))}
    absent = sorted(needed - set(groups[0])) if groups else []
    if absent:
        return f'lacks {", ".join(absent)}'
    if theirs != ours:
        return f'has parameter groups of {theirs} tensors for {ours}'
    for group, present in zip(groups, optimizer.param_groups):
        for name, value in group.items():
            if name != 'params' and not same_kind(value, present.get(name)):
                return f'has {name}={_short(value)} for {_short(present.get(name))}'
    return _entries_misfit(optimizer, groups, state)


def _entries_misfit(optimizer: Optimizer, groups: Sequence[dict], state: dict) -> str | None:
    """What is wrong with the states of single parameters.

    torch's own optimizers keep numbers and tensors of the parameter's shape, and fused ones rely on it.
    """
    of_torch = type(optimizer).__module__.startswith('torch.optim')
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    places = dict(zip((place for group in groups for place in group['params']), parameters))
    for place, values in state.items():
        if place not in places or not is_table_of(values, lambda value: True):
            return f'has an entry {_short(place)} that belongs to no parameter'
        shape = places[place].shape
        for name, value in values.items():
            if of_torch and isinstance(value, Tensor) and value.numel() != 1 and value.shape != shape:
                return f'has a {name} of shape {tuple(value.shape)} for {tuple(shape)}'
    return None


def _is_group(group: Any) -> bool:
    return is_table_of(group, lambda value: True) and is_list_of(group.get('params'), is_count)


def _settings_misfit(wrapper: OptimWrapper, saved: dict) -> str | None:
    """What is wrong with what MMEngine adds to it: a loss scaler's numbers, and the settings of no parameter."""
    own = wrapper.state_dict()
    for part in ('loss_scaler', 'base_param_settings'):
        if part not in saved:
            continue
        if part not in own or not isinstance(saved[part], dict):
            return f'has a {part} that is not used here'
        for name, value in saved[part].items():
            if not same_kind(value, own[part].get(name)):
                return f'has {part}.{name}={_short(value)} for {_short(own[part].get(name))}'
    return None


def schedulers_misfit(schedulers: list | dict | None, saved: Any) -> str | None:
    """How a checkpoint's ``param_schedulers`` differ from what the present ones could load; None if they do not.

    A scheduler takes its state into its attributes, so each name must be one that it has already, and each value of its
    kind.
    """
    if isinstance(schedulers, dict):
        faults = [
            schedulers_misfit(each, saved.get(name, [])) for name, each in schedulers.items() if isinstance(saved, dict)
        ]
        return next(filter(None, faults), None) if isinstance(saved, dict) else 'its param_schedulers is no dict'
    if not is_list_of(saved, lambda state: is_table_of(state, lambda value: True)):
        return 'its param_schedulers are not what schedulers save: train with load_from instead'
    if len(schedulers or ()) != len(saved):
        return (
            f'its param_schedulers are {len(saved)}, and {len(schedulers or ())} are there now: resume with the '
            'param_scheduler that wrote it'
        )
    for scheduler, state in zip(schedulers or (), saved):
        own = scheduler.state_dict()
        for name, value in state.items():
            if name not in own or not same_kind(value, own[name]):
                return (
                    f'its param_schedulers have {name}={_short(value)}, '
                    f'which a {type(scheduler).__name__} does not take: resume with the param_scheduler that wrote it'
                )
    return None


def changed_settings(optim_wrapper: OptimWrapper | OptimWrapperDict, schedulers: Any, checkpoint: dict) -> list[str]:
    """What the config sets anew and a resumed run does not take, since the checkpoint has it: a sentence part each.

    Values that schedules move are compared where they began. The states must fit, see above.
    """
    found: dict[str, None] = {}
    for _, wrapper, saved in _each(optim_wrapper, checkpoint['optimizer']):
        for group, present in zip(saved['param_groups'], wrapper.optimizer.param_groups):
            moved = {name.removeprefix('initial_') for name in group if name.startswith('initial_')}
            moved |= {'betas'} if 'momentum' in moved else set()
            for name, value in group.items():
                if name not in (*moved, 'params') and name in present and not _same(value, present[name]):
                    found[f'{name}={_short(value)}, not {_short(present[name])}'] = None
    saved_schedulers = checkpoint.get('param_schedulers') or []
    pairs = (
        [(schedulers or (), saved_schedulers)]
        if isinstance(saved_schedulers, list)
        else [(each, saved_schedulers.get(name, ())) for name, each in schedulers.items()]
    )
    for ours, theirs in pairs:
        for scheduler, state in zip(ours, theirs):
            own = scheduler.state_dict()
            for name, value in state.items():
                if name not in _PROGRESS and not name.startswith('_') and not _same(value, own.get(name)):
                    kind = type(scheduler).__name__
                    found[f'{kind}.{name}={_short(value)}, not {_short(own.get(name))}'] = None
    return list(found)


def _same(saved: Any, present: Any) -> bool:
    """Whether two settings are equal; numbers may differ by rounding."""
    if isinstance(saved, (list, tuple)) and isinstance(present, (list, tuple)):
        return len(saved) == len(present) and all(map(_same, saved, present))
    if isinstance(saved, float) and isinstance(present, (int, float)):
        return math.isclose(saved, present, rel_tol=1e-9)
    same = saved == present
    return same if isinstance(same, bool) else True  # arrays and tensors are no settings


def without_functions(states: list[dict] | dict[str, list[dict]]) -> list[dict] | dict[str, list[dict]]:
    """Saved schedulers without the functions that some (OneCycleLR) have as attributes; a new one has them too."""
    if isinstance(states, dict):
        return {name: [_plain(state) for state in each] for name, each in states.items()}
    return [_plain(state) for state in states]


def _plain(state: dict) -> dict:
    return {name: value for name, value in state.items() if not callable(value)}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
