"""Tensors in checkpoints, rebuilt within their storages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .files import Storage, item_size
from .pickle_records import Made, Refused, arguments, sizes

if TYPE_CHECKING:
    from .rebuilding import Rebuilder

SMALL = 2**26  # bytes that a tensor with repeated items may have in any file; in a larger one, as many as the file
DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
_COMPRESSED = ('torch.sparse_csr', 'torch.sparse_csc', 'torch.sparse_bsr', 'torch.sparse_bsc')


def _size(rebuilder: Rebuilder, made: Made) -> tuple[int, ...]:
    return sizes(made)


def _tensor(rebuilder: Rebuilder, made: Made) -> Tensor:
    """``_rebuild_tensor(storage, offset, size, stride)``.

    In ``_rebuild_tensor_v2`` requires_grad, hooks and metadata follow, which stay behind; in ``_rebuild_tensor_v3`` a
    dtype, in front of the metadata.
    """
    storage, offset, size, stride, *rest = made.args
    if type(storage) is not Storage or type(offset) is not int or offset < 0 or made.items or made.state is not None:
        raise Refused(f'{made.name} with other arguments than it is saved with')
    dtype = storage.dtype
    if made.name.endswith('v3'):
        dtype = DTYPES[rest.pop(2)]
    _check_rest(*rest)
    size, stride = sizes(size), sizes(stride)
    item = item_size(dtype)
    if math.prod(size) * item > max(rebuilder.size, SMALL):
        raise Refused('a tensor that is larger than the file')
    items = rebuilder.storage(storage).view(dtype)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride)) if 0 not in size else offset - 1
    if len(size) != len(stride) or last >= len(items):
        raise ValueError(f'a tensor of size {size} and stride {stride} ends behind its storage')
    if dtype is torch.bool and len(items) and items.view(torch.uint8).max() > 1:
        raise ValueError('truth values other than true and false')
    return items.as_strided(size, stride, items.storage_offset() + offset)


def _check_rest(requires_grad: Any = False, hooks: Any = None, metadata: Any = None) -> None:
    no_hooks = hooks is None or type(hooks) is Made and hooks.name == 'collections.OrderedDict' and not hooks.items
    if not isinstance(requires_grad, bool) or not no_hooks or metadata:
        raise Refused('a tensor with hooks or metadata')


def _parameter(rebuilder: Rebuilder, made: Made) -> Tensor:
    """``_rebuild_parameter(tensor, requires_grad, hooks)``: the tensor."""
    tensor, requires_grad, hooks = arguments(made, Made, bool, Made)
    _check_rest(requires_grad, hooks)
    value = rebuilder.value(tensor)
    if not isinstance(value, Tensor):
        raise Refused('a parameter that is no tensor')
    return value


def _sparse(rebuilder: Rebuilder, made: Made) -> Tensor:
    """``_rebuild_sparse_tensor(layout, (indices..., values, size))``, with torch's own check of the indices."""
    layout, parts = arguments(made, Made, tuple)
    (name,) = arguments(layout, str)
    if layout.name != 'torch.serialization._get_layout':
        raise Refused('a sparse tensor without a layout')
    size = sizes(parts[2 if name == 'torch.sparse_coo' else 3])
    inside = [rebuilder.value(part) for part in parts[: 2 if name == 'torch.sparse_coo' else 3]]
    if not all(isinstance(part, Tensor) and part.layout is torch.strided for part in inside):
        raise Refused('a sparse tensor of something else than tensors')
    if name == 'torch.sparse_coo':
        indices, values = inside
        return torch.sparse_coo_tensor(indices, values, size, check_invariants=True)
    if name not in _COMPRESSED:
        raise Refused(f'the layout {name}')
    compressed, plain, values = inside
    layout_of_torch = getattr(torch, name.rpartition('.')[2])
    return torch.sparse_compressed_tensor(
        compressed, plain, values, size, layout=layout_of_torch, check_invariants=True
    )


MAKERS = {
    'torch.Size': _size,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _tensor,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_sparse_tensor': _sparse,
}
NAMES = ('torch.serialization._get_layout',)
