"""A module that imports both names runs its tests twice: with the search of a CPU, and with that of a GPU.

from both_searches import pytest_generate_tests, search  # noqa: F401
"""

from __future__ import annotations

import pytest

from mmlckd.functional import launches


def pytest_generate_tests(metafunc):
    metafunc.fixturenames.append('search')
    metafunc.parametrize('search', ['as on a CPU', 'as on a GPU'], indirect=True)


@pytest.fixture(scope='module')
def search(request):
    if request.param == 'as on a CPU':
        yield
        return
    launches._DEVICES.add('cpu')
    yield
    launches._DEVICES.discard('cpu')
