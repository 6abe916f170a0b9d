"""Install mmcv so that it works with the torch that is installed.

    python tools/install_mmcv.py             # with its compiled operators, which mmdet needs
    python tools/install_mmcv.py --no-ops    # without them, unless the cache has them: enough for mmpretrain, and quick

With upstream's mmengine it installs upstream's mmcv, and OneDL's otherwise.

A plain `pip install` builds mmcv where it sees no torch and leaves the operators out without a word. Here they are
compiled against the installed torch (10 to 15 minutes on two cores, once); the wheel is kept in the user's cache folder
($XDG_CACHE_HOME or ~/.cache, mmlckd/wheels), by mmcv, torch, Python and platform, and found there ever after.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

UV = (sys.executable, '-m', 'uv', 'pip')
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mmlckd' / 'wheels'
REQUIREMENTS = Path(__file__).resolve().parents[1] / 'requirements'


def is_upstream():
    """Whether MMEngine is upstream's: OneDL's distributions have other names."""
    try:
        distribution('mmengine')
    except PackageNotFoundError:
        return False
    return True


CONSTRAINTS = REQUIREMENTS / ('constraints-upstream.txt' if is_upstream() else 'constraints.txt')
NAME = 'mmcv' if is_upstream() else 'onedl-mmcv'
REMEDY = (
    'install a C++ compiler (Debian: apt-get install g++ python3-dev) and run this again, or get a prebuilt wheel that '
    'fits your torch with `pip install openmim && mim install "mmcv>=2"`'
)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--no-ops', action='store_true', help='do not compile; take the operators only if a cached wheel has them'
    )
    parser.add_argument('--requirement', help=f'what to install (default: the tested version of {NAME})')
    args = parser.parse_args()
    if args.requirement is None:
        args.requirement = next(line for line in CONSTRAINTS.read_text().split() if line.startswith(f'{NAME}=='))
    return args


def imports(module):
    """Whether a fresh interpreter imports the module."""
    return subprocess.run([sys.executable, '-c', f'import torch, {module}'], capture_output=True).returncode == 0


def install(*what, **environment):
    command = [
        *UV,
        'install',
        '--quiet',
        '--no-cache',
        '--compile-bytecode',
        '--python',
        sys.executable,
        '-c',
        str(CONSTRAINTS),
    ]
    subprocess.run([*command, *what], check=True, env={**os.environ, **environment})


def cache_folder(requirement):
    import torch

    parts = [
        requirement.replace('==', '-'),
        f'torch-{torch.__version__}',
        sysconfig.get_config_var('SOABI'),
        sysconfig.get_platform(),
    ]
    return CACHE / '_'.join([*parts, *(['cuda'] if torch.cuda.is_available() else [])])


def compile_wheel(requirement, folder):
    """Compile into a folder beside the final one, and rename it when it is complete."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix='building-', dir=folder.parent))
    environment = dict(
        MMCV_WITH_OPS='1',
        MAX_JOBS=str(os.cpu_count()),
        CFLAGS='-g0',
        CXXFLAGS='-g0',  # debug symbols double the time
        PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
    )
    command = [
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '--verbose',
        '--no-build-isolation',
        '--no-deps',
        '--no-cache-dir',
        '--no-binary',
        ':all:',
        '-w',
        str(partial),
        requirement,
    ]
    log = folder.parent / f'{folder.name}.log'
    columns = (TextColumn("compiling mmcv's operators"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with open(log, 'w') as out, Progress(*columns) as progress:
            task = progress.add_task('compile', total=None)
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
            )
            for line in process.stdout:
                out.write(line)
                step = re.match(r'\s*\[(\d+)/(\d+)\]', line)
                if step:
                    progress.update(task, completed=int(step[1]), total=int(step[2]))
                    if not progress.console.is_terminal and int(step[1]) % 10 == 0:
                        print(f"compiling mmcv's operators: {step[1]} of {step[2]}", flush=True)
            if process.wait():
                sys.exit(f"error: mmcv's operators did not compile, see {log}: {REMEDY}")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main():
    args = parse_args()
    if imports('mmcv._ext') or args.no_ops and imports('mmcv'):
        return
    folder = cache_folder(args.requirement)
    wheels = list(folder.glob('*.whl'))
    if not wheels and args.no_ops:
        install(args.requirement, MMCV_WITH_OPS='0')
        return
    if not wheels:
        compile_wheel(args.requirement, folder)
        wheels = list(folder.glob('*.whl'))
    if is_upstream():  # whose operator-less mmcv is a distribution of its own, with the same files
        subprocess.run([*UV, 'uninstall', '--quiet', '--python', sys.executable, 'mmcv-lite'], check=True)
    install('--reinstall-package', NAME, *map(str, wheels))
    if not imports('mmcv._ext'):
        sys.exit(
            f'error: mmcv is installed from {wheels[0]} and its operators still do not import: '
            f'remove {folder}, then {REMEDY}'
        )


if __name__ == '__main__':
    main()
