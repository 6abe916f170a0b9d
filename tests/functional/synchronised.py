"""A synchronised norm, folded on two processes: each checks itself against one norm of both halves of the batch."""

from __future__ import annotations

import atexit

import torch
from torch import distributed, nn

from mmlckd.cli.processes import leave_group
from mmlckd.distillers.connectors import Connector
from mmlckd.functional import AffineMap, folded, partial_squared_distance

distributed.init_process_group('gloo')
atexit.register(leave_group)
rank = distributed.get_rank()
torch.manual_seed(0)
weight = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
halves = [torch.randn(count, 4, 5, 6, dtype=torch.float64) + 2 for count in (3, 1)]  # unequal shares
targets = [torch.randn(len(half), 7, 5, 6, dtype=torch.float64) for half in halves]
norms = [kind(7).double() for kind in (nn.SyncBatchNorm, nn.BatchNorm2d)]

feat, batch = halves[rank].requires_grad_(), torch.cat(halves).detach().requires_grad_()
distance, _ = partial_squared_distance(folded(feat, weight, norms[0]), targets[rank].clone())
found = torch.autograd.grad(distance, (feat, weight))
distributed.all_reduce(found[1])  # what DDP does, but for a factor

expected, _ = partial_squared_distance(folded(batch, weight, norms[1]), torch.cat(targets))
wanted = list(torch.autograd.grad(expected, (batch, weight)))
wanted[0] = wanted[0][:3] if rank == 0 else wanted[0][3:]
torch.testing.assert_close(list(found), wanted)
torch.testing.assert_close(norms[0].state_dict(), norms[1].state_dict())


# Whether a map is folded must not depend on the batch: one process may hold many positions, and another few.
connector = Connector(4, 7).double()
connector[1] = norms[0]
small = torch.randn((64, 1)[rank], 4, 1, 1, dtype=torch.float64, requires_grad=True)
connected = connector.fold(small)
assert isinstance(connected, AffineMap)
torch.autograd.grad(connected.dense().square().sum(), small)
