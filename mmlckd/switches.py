"""Default hooks that a config switches off."""

from __future__ import annotations

import functools

from mmengine.hooks import Hook
from mmengine.runner import Runner


def let_none_switch_hooks_off() -> None:
    """Let ``default_hooks.<name>=None`` switch off a hook of any name, from a config or a command line.

    MMEngine allows this for its own six default hooks and fails for all others. Here a hook that does nothing takes the
    place of each None. MMEngine's own tools get this, too, because they import this package by ``custom_imports``.

    Source: this project.
    """
    register_default_hooks = Runner.register_default_hooks

    @functools.wraps(register_default_hooks)
    def register(self, hooks=None) -> None:
        given = {name: Hook() if hook is None else hook for name, hook in (hooks or {}).items()}
        register_default_hooks(self, given)

    Runner.register_default_hooks = register
