"""Run one of this package's tools from any folder.

    mmlckd train CONFIG
    mmlckd dist_train CONFIG 8
    python -m mmlckd analyze_lipschitz --help

``mmlckd TOOL ...`` is what ``python tools/TOOL.py ...`` (or ``bash tools/TOOL.sh ...``) is in a clone.
"""

from __future__ import annotations

import os
import sys

from mmlckd.config import SHIPPED


def tools() -> dict[str, list[str]]:
    """The command that each tool is run by, by its name."""
    programs = {'.py': [sys.executable], '.sh': ['bash']}
    paths = sorted((SHIPPED / 'tools').iterdir())
    return {path.stem: [*programs[path.suffix], str(path)] for path in paths if path.suffix in programs}


def main() -> None:
    known = tools()
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print(f'{__doc__}\nTools: {", ".join(known)}')
    elif name not in known:
        sys.exit(f'error: there is no tool {name!r}: choose one of {", ".join(known)}')
    else:
        command = [*known[name], *sys.argv[2:]]
        os.environ.setdefault('PYTHON', sys.executable)  # of the processes that a shell script starts
        os.execvp(command[0], command)


if __name__ == '__main__':
    main()
