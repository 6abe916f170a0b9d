"""What differs between the versions of torch that are supported. Each function says which version brings its own."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

try:
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError:  # before torch 2.3
    SDPBackend = sdpa_kernel = None

try:
    from torch.compiler import disable as not_compiled
except ImportError:  # before torch 2.1
    from torch._dynamo import disable as not_compiled

__all__ = ['autocast_is_on', 'not_compiled', 'plain_attention']


def autocast_is_on(device_type: str) -> bool:
    """Whether operations on that type of device ('cpu', 'cuda') run under autocast.

    torch 2.4 brings ``torch.is_autocast_enabled(device_type)``.
    """
    try:
        return torch.is_autocast_enabled(device_type)
    except TypeError:
        return torch.is_autocast_cpu_enabled() if device_type == 'cpu' else torch.is_autocast_enabled()


def plain_attention() -> contextlib.AbstractContextManager[Any]:
    """A context in which attention runs as two matrix products and a softmax, which have every derivative.

    torch 2.3 brings ``torch.nn.attention.sdpa_kernel``.
    """
    if sdpa_kernel is None:
        return torch.backends.cuda.sdp_kernel(enable_flash=False, enable_math=True, enable_mem_efficient=False)
    return sdpa_kernel(SDPBackend.MATH)
