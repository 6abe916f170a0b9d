"""What the demo refuses; that it runs is the test of its parts."""

from __future__ import annotations

import importlib.util

import pytest
from conftest import ROOT


@pytest.fixture(scope='module')
def demo():
    spec = importlib.util.spec_from_file_location('demo_tool', ROOT / 'tools/demo.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.mark.parametrize('asked, refused', [(0, True), (1, False)])
def test_a_folder_with_another_seed(demo, asked, refused, tmp_path):
    path = tmp_path / 'mnist5k_wrn10-1.py'
    args = demo.make_parser().parse_args(['--seed', str(asked), '--work-dir', str(tmp_path)])
    demo.refuse_another_seed(path, args)  # nothing is there yet
    path.write_text('randomness = dict(seed=1)')
    if not refused:
        demo.refuse_another_seed(path, args)
        return
    with pytest.raises(ValueError, match='--seed is 0, and .* holds a training with seed 1: give each'):
        demo.refuse_another_seed(path, args)


def test_the_teacher_serves_every_seed(demo, tmp_path):
    path = tmp_path / 'mnist5k_wrn16-2.py'
    path.write_text('randomness = dict(seed=0)')
    demo.refuse_another_seed(path, demo.make_parser().parse_args(['--seed', '1']))
