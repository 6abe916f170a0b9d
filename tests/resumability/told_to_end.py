"""A training on two processes, of which the second is told to end while both evaluate shares of unequal lengths.

Its arguments are the work folder, the iterations of each rank's evaluation, and after how many of them both must have
left; 0 is for the end, where the results come together.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from short_run import SAFE, training
from small_network import loader
from torch import distributed

from mmlckd.cli.processes import leave_group
from mmlckd.resumability import PreemptionHook

distributed.init_process_group('gloo')
atexit.register(leave_group)
folder, *lengths, left_at = sys.argv[1:]
length = int(lengths[get_rank()])
seen = []


class Told(Hook):
    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        seen.append(batch_idx)
        if get_rank() == 1 and batch_idx == 2:
            os.kill(os.getpid(), signal.SIGTERM)


runner = training(Path(folder), [PreemptionHook(), Told()], SAFE, validate=True, max_epochs=2)
runner._val_dataloader = loader(2 * length)
try:
    runner.train()
    raise AssertionError('the training went on')
except SystemExit as ended:
    assert ended.code == 143
assert len(seen) == (int(left_at) or length), seen
