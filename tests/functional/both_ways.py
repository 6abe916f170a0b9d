"""A module that imports both names runs its tests twice: with the operations of a CPU, and with those of a GPU.

from both_ways import pytest_generate_tests, way  # noqa: F401
"""

from __future__ import annotations

import pytest

from mmlckd.functional import launches


def pytest_generate_tests(metafunc):
    metafunc.fixturenames.append('way')
    metafunc.parametrize('way', ['as on a CPU', 'as on a GPU'], indirect=True)


@pytest.fixture(scope='module')
def way(request):
    if request.param == 'as on a CPU':
        yield
        return
    launches._DEVICES.add('cpu')
    yield
    launches._DEVICES.discard('cpu')
