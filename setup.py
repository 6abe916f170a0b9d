from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name):
    lines = (line.split('#')[0].strip() for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines())
    return [line for line in lines if line]


version = {}
exec((ROOT / 'mmlckd' / 'version.py').read_text(), version)

setup(
    name='mmlckd',
    version=version['__version__'],
    description='Lipschitz-continuity-guided knowledge distillation for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmlckd', 'mmlckd.*']),
    # type checkers look for py.typed; MIM and `mmlckd::...` look in .mim, where the clone has links
    package_data={
        'mmlckd': [
            'py.typed',
            '.mim/model-index.yml',
            '.mim/configs/**/*.py',
            '.mim/configs/**/*.yml',
            '.mim/configs/**/*.md',
            '.mim/configs/study/*.json',
            '.mim/requirements/*.txt',
            '.mim/tools/*.py',
            '.mim/tools/*.sh',
            '.mim/tools/benchmarks/*.py',
        ]
    },
    entry_points={'console_scripts': ['mmlckd = mmlckd.__main__:main']},
    # torch and the OpenMMLab packages are extras: an environment that has them, under either name, is left as it is
    install_requires=requirements('runtime'),
    extras_require=dict(
        torch=requirements('torch'),
        openmmlab=requirements('openmmlab'),
        timm=requirements('timm'),
        demo=requirements('demo'),
        tests=requirements('tests'),
    ),
)
