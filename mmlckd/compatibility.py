"""What differs between the supported versions of torch. Each function says which version brings torch's own."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from mmengine.utils import digit_version
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

try:
    from torch.compiler import disable as not_compiled
    from torch.compiler import is_compiling
except ImportError:  # not_compiled before torch 2.1, is_compiling before 2.3
    from torch._dynamo import disable as not_compiled
    from torch._dynamo import is_compiling

__all__ = [
    'autocast_is_on',
    'before_loading',
    'before_steps',
    'compile_by_hooks',
    'compiled_since_2_10',
    'is_compiling',
    'not_compiled',
    'plain_attention',
]


def autocast_is_on(device_type: str) -> bool:
    """Whether operations on that type of device ('cpu', 'cuda') run under autocast.

    torch 2.4 brings ``torch.is_autocast_enabled(device_type)``.
    """
    try:
        return torch.is_autocast_enabled(device_type)
    except TypeError:
        return torch.is_autocast_cpu_enabled() if device_type == 'cpu' else torch.is_autocast_enabled()


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """A context in which attention runs as two matrix products and a softmax, which have every derivative.

    torch 2.3 brings ``torch.nn.attention.sdpa_kernel``.
    """
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:
        context = torch.backends.cuda.sdp_kernel(enable_flash=False, enable_math=True, enable_mem_efficient=False)
    else:
        context = sdpa_kernel(SDPBackend.MATH)
    with context:
        yield


def compile_by_hooks() -> None:
    """Let ``torch.compile`` look whether a module's hooks have changed, before it runs a graph again.

    By default it does not look. Taps are hooks that come and go, and another forward's graph would collect nothing.
    torch 2.1 brings the switch. Before 2.10 nothing that taps is compiled, see :func:`compiled_since_2_10`.
    """
    from torch._dynamo import config  # the decorator `not_compiled` has imported it

    if hasattr(config, 'skip_nnmodule_hook_guards'):
        config.skip_nnmodule_hook_guards = False


def compiled_since_2_10(function: Callable) -> Callable:
    """Let ``torch.compile`` pass over a function, where torch is older than 2.10.

    torch 2.1 cannot trace ``super()`` in a class that is made at run time; neither 2.1 nor 2.6 can trace dicts whose
    keys are objects. 2.10 is the next version that was tried, and can. The function must not itself be given to
    ``torch.compile``, which takes it apart then.
    """
    return function if digit_version(torch.__version__) >= digit_version('2.10') else not_compiled(function)


def before_loading(module: nn.Module, hook: Callable[..., None]) -> RemovableHandle:
    """Call ``hook(state_dict, prefix, ...)`` whenever a state dict is loaded into a module.

    torch 2.5 makes ``register_load_state_dict_pre_hook`` public, and hands it the module too.
    """
    return module._register_load_state_dict_pre_hook(hook)


def before_steps(optimizer: Optimizer, hook: Callable[[], None]) -> Callable[[], None]:
    """Call ``hook()`` before each step of an optimizer; what is returned ends that.

    Optimizers have ``register_step_pre_hook``, but torch 2.1 no longer calls it once anything is compiled.
    """
    step = optimizer.step

    @functools.wraps(step)  # MMEngine's schedulers leave a mark on the method, and look for it
    def hooked(*args, **kwargs):
        hook()
        return step(*args, **kwargs)

    def end() -> None:
        optimizer.step = step  # type: ignore[method-assign]

    optimizer.step = hooked  # type: ignore[method-assign]
    return end
