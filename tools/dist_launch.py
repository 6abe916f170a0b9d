"""Start the processes of a job on this machine, and tell in one sentence how a job that failed has ended.

What tools/dist_train.sh and tools/dist_test.sh call. The arguments are those of torchrun, which does the work.
"""

from __future__ import annotations

import signal
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException, api
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

# Seconds that workers have, once the job is told to end. A cluster that is less patient kills them itself.
PATIENCE = 3600


def _end_once(number, frame):
    """torch's handler raises again at a second signal, and then the launcher ends before its workers have saved."""
    signal.signal(number, signal.SIG_IGN)
    api.PContext.close = _close_patiently
    raise SignalException(f'got signal {number}', sigval=signal.Signals(number))


def _close_patiently(context, death_sig=None, timeout=PATIENCE):
    """torch kills workers that are still at work after 30 seconds: an evaluation or a checkpoint may take longer."""
    _close(context, death_sig, timeout)


_close = api.PContext.close
api._terminate_process_handler = _end_once


def main():
    try:
        run.main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        end = f'was killed by {signal.Signals(-code).name}' if code < 0 else f'ended with exit code {code}'
        print(f'error: rank {rank} (process {failure.pid}) {end}, and the whole job with it', file=sys.stderr)
        sys.exit(code if code > 0 else 128 - code)
    except SignalException as error:
        print(f'the job was ended by {error.sigval.name}', file=sys.stderr)
        sys.exit(128 + error.sigval)


if __name__ == '__main__':
    main()
