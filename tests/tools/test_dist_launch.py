"""How long workers have, once a job is told to end."""

from __future__ import annotations

import dist_launch
import pytest
from torch.distributed.elastic.multiprocessing import SignalException, api


def test_workers_have_time_to_save_when_the_job_is_told_to_end_and_not_when_one_failed(monkeypatch):
    given = []
    monkeypatch.setattr(dist_launch, '_close', lambda context, death_sig, timeout: given.append(timeout))
    monkeypatch.setattr(dist_launch.signal, 'signal', lambda *_: None)
    usual = api.PContext.close
    monkeypatch.setattr(api.PContext, 'close', usual)  # and back after the test
    with pytest.raises(SignalException):
        dist_launch._end_once(15, None)
    assert api.PContext.close is not usual
    api.PContext.close(object(), 15)
    assert given == [3600]
