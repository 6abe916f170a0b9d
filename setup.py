from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name):
    lines = (line.split('#')[0].strip() for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines())
    return [line for line in lines if line]


SHIPPED = ('model-index.yml', 'requirements/*', 'configs/**/*', 'tools/**/*')
version = {}
exec((ROOT / 'mmlckd' / 'version.py').read_text(), version)

setup(
    name='mmlckd',
    version=version['__version__'],
    description='Lipschitz-continuity-guided knowledge distillation for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.9',
    packages=find_packages(include=['mmlckd', 'mmlckd.*']),
    # type checkers read the annotations; MIM and `mmlckd::...` look for configs and tools in .mim, which here is links
    package_data={'mmlckd': ['py.typed', *(f'.mim/{name}' for name in SHIPPED)]},
    exclude_package_data={'mmlckd': ['.mim/**/__pycache__/*', '.mim/**/records/*', '.mim/tools/maintenance/*']},
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
