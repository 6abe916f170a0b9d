"""A forked tool finds what a fresh interpreter would give it."""

from __future__ import annotations

import json

import pytest
from conftest import run

REPORT = """
import json, os, sys
loaded = [name for name in sys.modules if name.partition('.')[0] in ('mmlckd', 'mmpretrain', 'mmdet', 'mmseg')]
import mmlckd, beside
report = dict(
    argv=sys.argv,
    cwd=os.getcwd(),
    name=__name__,
    loaded=loaded,
    package=mmlckd.__file__,
    beside=beside.__file__,
    variable=os.environ.get('TOLD'),
    stdin=sys.stdin.read(),
    threads=len(os.listdir('/proc/self/task')),
)
print(json.dumps(report))
"""


@pytest.fixture
def script(tmp_path):
    def write(text):
        (tmp_path / 'tool.py').write_text(text)
        return tmp_path / 'tool.py'

    return write


def test_what_a_tool_sees(script, tmp_path):
    tool = script(REPORT)
    (tmp_path / 'beside.py').touch()
    (tmp_path / 'copy' / 'mmlckd').mkdir(parents=True)
    (tmp_path / 'copy' / 'mmlckd' / '__init__.py').touch()
    result = run(tool, '--option', 1, cwd=tmp_path / 'copy', PYTHONPATH=str(tmp_path / 'copy'), TOLD='yes')
    assert json.loads(result.stdout) == dict(
        argv=[str(tool), '--option', '1'],
        cwd=str(tmp_path / 'copy'),
        name='__main__',
        loaded=[],
        variable='yes',
        stdin='',
        threads=1,
        package=str(tmp_path / 'copy' / 'mmlckd' / '__init__.py'),
        beside=str(tmp_path / 'beside.py'),
    )


@pytest.mark.parametrize(
    'text, code, stderr',
    [
        ('', 0, ''),
        ('import sys; sys.exit(3)', 3, ''),
        ('import sys; sys.exit("told")', 1, 'told\n'),
        ('1 / 0', 1, 'division by zero\n'),
        ('import os, signal; os.kill(os.getpid(), signal.SIGKILL)', -9, ''),
        ('import atexit; atexit.register(lambda: print("end"))', 0, ''),
    ],
)
def test_how_it_ends(text, code, stderr, script):
    result = run(script(text))
    assert result.returncode == code and result.stderr.endswith(stderr)
    assert result.stdout == ('end\n' if 'atexit' in text else '')
    assert ('Traceback' in result.stderr) == ('division' in stderr)


def test_variables_that_are_read_at_import_get_a_process_of_their_own(script):
    tool = script('import sys; print("torch" in sys.modules)')
    assert run(tool).stdout == 'True\n' and run(tool, OMP_NUM_THREADS='2').stdout == 'False\n'
