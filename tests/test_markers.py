"""Tests get the markers that they need by what they name."""

from __future__ import annotations

import subprocess

import pytest
from conftest import run
from markers import functions_in, rows, values, words


def direct():
    run('tools/train.py')


def through_a_helper():
    return [direct() for _ in range(2)]


def by_subprocess():
    def inner():
        subprocess.run(['true'])

    return inner


def detector():
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs


def detectors_in_a_tuple():
    for name in ('mmdet::one.py', 'mmdet::two.py'):
        run(name)


def detector_in_a_string():
    return dict(config='mmdet::_base_/models/faster-rcnn_r50_fpn.py')


TABLE = {'a detector': (lambda: detector(), 1), 'a classifier': (lambda: plain(), 2)}


def table():
    return TABLE


def plain():
    return sorted('abc')


@pytest.mark.parametrize(
    'function, starter', [(direct, run), (through_a_helper, run), (by_subprocess, subprocess), (plain, None)]
)
def test_what_starts_processes_is_found(function, starter):
    found = [value for value in values(function) if value in (run, subprocess)]
    assert found == ([] if starter is None else [starter])


@pytest.mark.parametrize(
    'function, named',
    [
        (detector, True),
        (detector_in_a_string, True),
        (detectors_in_a_tuple, True),
        (plain, False),
        (direct, False),
    ],
)
def test_what_needs_a_detector_is_found(function, named):
    assert any('mmdet' in word for word in words(function)) == named


@pytest.mark.parametrize('name, named', [('a detector', True), ('a classifier', False), ('no row', False), (3, False)])
def test_what_a_parameter_names_in_a_table_is_found(name, named):
    assert any('mmdet' in word for word in words(*functions_in(rows(table, name)))) == named


def test_this_suite_marks_its_own(request):
    for item in request.session.items:
        names = {marker.name for marker in item.iter_markers()}
        if {'mnist', 'devkit', 'trained_alone'} & set(item.fixturenames):
            assert 'process' in names, item.nodeid
        if 'detection' in item.nodeid.partition('[')[2]:
            assert 'ops' in names, item.nodeid
