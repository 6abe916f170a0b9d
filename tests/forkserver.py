"""Runs Python tools in forks of a process that has imported the third-party packages: imports are most of a short run.

    server = ForkServer()
    server.run(['tools/train.py', 'CONFIG'], cwd, environment)      # -> subprocess.CompletedProcess

A fork is what a fresh interpreter would be after those imports. The host libraries and this package are not among them,
because their registrations depend on the order of imports. With OMP_NUM_THREADS=1 importing torch starts no thread; a
fork would lose threads.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

IMPORTED = (
    'torch',
    'torchvision',
    'torch.distributed.run',
    'torch.utils.tensorboard',
    'numpy',
    'scipy.stats',
    'cv2',
    'PIL.Image',
    'matplotlib.pyplot',
    'pandas',
    'sklearn.metrics',
    'shapely.geometry',
    'pycocotools.coco',
    'einops',
    'psutil',
    'modelindex',
    'rich.progress',
    'yaml',
    'mmengine',
    'mmengine.runner',
    'mmengine.hub',
    'mmengine.visualization',
    'mmcv',
)
READ_AT_IMPORT = {'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'CUDA_VISIBLE_DEVICES', 'MPLBACKEND', 'PYTHONHASHSEED'}


class ForkServer:
    """The client's side of one server process. It runs one command at a time, and ends with its client."""

    def __init__(self):
        environment = dict(os.environ, CUDA_VISIBLE_DEVICES='')  # MMEngine chooses the device when it is imported
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, command, cwd, environment):
        with tempfile.TemporaryDirectory() as folder:
            out, err = (Path(folder) / name for name in ('stdout', 'stderr'))
            job = dict(command=command, cwd=str(cwd), environment=environment, stdout=str(out), stderr=str(err))
            print(json.dumps(job), file=self.process.stdin, flush=True)
            returncode = int(self.process.stdout.readline())
            return subprocess.CompletedProcess(command, returncode, out.read_text(), err.read_text())


def become(job):
    """In the fork: take the working folder, files, environment and arguments of a fresh `python tool.py ...`."""
    for name, target in (('/dev/null', 0), (job['stdout'], 1), (job['stderr'], 2)):
        file = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(file, target)
        os.close(file)
    os.chdir(job['cwd'])
    os.environ.clear()
    os.environ.update(job['environment'])
    sys.argv = job['command']
    sys.path[:] = [
        str(Path(sys.argv[0]).resolve().parent),
        *job['environment']['PYTHONPATH'].split(os.pathsep),
        *sys.path,
    ]


def serve():
    """Fork for every job. In the fork, return its tool: the interpreter ends when the tool ends."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(json.loads(line))
            return sys.argv[0]
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == '__main__':
    here = str(Path(__file__).parent)
    sys.path[:] = [
        folder
        for folder in sys.path
        if folder != here and folder not in os.environ.get('PYTHONPATH', '').split(os.pathsep)
    ]
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()
    atexit.register(gc.freeze)  # a last garbage collection would write to all of torch's pages, and so copy them
    tool = serve()
    if tool is not None:
        runpy.run_path(tool, run_name='__main__')
