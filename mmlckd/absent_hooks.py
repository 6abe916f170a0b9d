"""Hooks that are switched off by None."""

from __future__ import annotations

import functools

from mmengine.hooks import Hook
from mmengine.runner import Runner


def let_hooks_be_none() -> None:
    """Let ``default_hooks.<name>=None`` switch any hook off from now on, as it does MMEngine's own six.

    MMEngine's runner fails an assertion where another hook is None. Here a hook that does nothing takes its place. The
    tools call this, and so does the distiller when it is built, which the runner does before it registers hooks: so the
    tools of the host libraries behave alike.

    Source: this project.
    """
    register = Runner.register_default_hooks
    if hasattr(register, '__wrapped__'):
        return

    @functools.wraps(register)
    def register_default_hooks(runner: Runner, hooks: dict[str, Hook | dict | None] | None = None) -> None:
        register(runner, {name: Hook() if hook is None else hook for name, hook in (hooks or {}).items()})

    Runner.register_default_hooks = register_default_hooks
