"""Pairs of configs that the host libraries ship: built as tools/distill.py does, and trained one step.

A few run here; `make nightly` tries all of them, see the page docs/pairs.md.
"""

from __future__ import annotations

import os

import pair_table
import pytest
from pair_trial import try_pair
from pairs import PAIRS

ALL = os.environ.get('MMLCKD_ALL_PAIRS') == '1'
TRIED = {pair.name: pair for pair in PAIRS if pair.quick or ALL}


@pytest.mark.slow
@pytest.mark.ops
@pytest.mark.parametrize('name', TRIED)
def test_a_pair_trains_one_step(name):
    found = try_pair(TRIED[name])
    known = pair_table.record()['pairs'].get(name, {})
    assert ('fails' in found) == ('fails' in known), found.get('fails')
    assert found.get('losses') == known.get('losses'), 'the page is old: run tools/maintenance/pair_table.py'


def test_the_record_has_every_pair():
    assert list(pair_table.record()['pairs']) == [pair.name for pair in PAIRS]
