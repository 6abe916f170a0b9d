"""Folded norms that are synchronised over processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import run_two_ranks


@pytest.mark.process
def test_synchronised_norms_see_the_batches_of_all_processes():
    run_two_ranks(Path(__file__).with_name('synchronised.py'))
