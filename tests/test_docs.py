"""The pages: their commands run, their links lead somewhere, their tables are the records', their Python is valid.

A page is any Markdown file of the repository. A command is a line of a ```bash block. Each distinct command runs once
here, on small data, or names the test that runs it: see COMMANDS and CASES.
"""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, run
from mmengine.config import Config

sys.path[:0] = [str(ROOT / 'tools' / folder) for folder in ('maintenance', 'benchmarks')]  # tools, not packages
import page_tables  # noqa: E402
from marked_text import marked_names  # noqa: E402

PAGES = {page.relative_to(ROOT).as_posix(): page.read_text() for page in page_tables.pages()}
FENCED = re.compile(r'^ *```(\S*)\n(.*?)^ *```$', re.DOTALL | re.MULTILINE)
BLOCKS = [(page, language, body) for page, text in PAGES.items() for language, body in FENCED.findall(text)]
PROSE = {page: FENCED.sub('', text) for page, text in PAGES.items()}
README = PAGES['README.md']


def commands_of(text):
    """The commands in a bash block, one a line; a line that ends in a backslash goes on in the next."""
    for line in text.replace('\\\n', ' ').splitlines():
        command = re.sub(r'(^|\s)#.*', '', line).strip()
        if command:
            yield ' '.join(command.split())


# The README's come first, since others may need what they leave.
BASH = [
    body for _, body in sorted((page != 'README.md', body) for page, language, body in BLOCKS if language == 'bash')
]
COMMANDS = list(dict.fromkeys(command for body in BASH for command in commands_of(body)))

MAKE, PIP, CLONE, STUDY, NO_DATA = 'make', 'pip', 'clone', 'study', 'no data'
DEMO = r'configs/demo/mnist5k_\S+\.py'
CASES = {  # a command, as a pattern: how it runs here, or where the test of what it does is
    r'make .*': MAKE,
    r'pip install -e \.': PIP,
    r'python tools/prepare_digits\.py': CLONE,
    r'python tests/checkpoints/other_stack\.py': (
        'tests/checkpoints/test_other_stacks.py::test_what_is_read_is_what_would_be_written_here'
    ),
    rf'python tools/(train|test|analyze_lipschitz)\.py {DEMO}.*': CLONE,
    rf'python tools/distill\.py {DEMO} {DEMO} .*': CLONE,
    r'python tools/train\.py recipes/.*': CLONE,
    r'python tools/export_student\.py .*': CLONE,
    r'python tools/study\.py --preset \w+': STUDY,
    r'(python|bash) tools/(train\.py|dist_train\.sh) configs/(lckd|baselines|teachers)/.*': NO_DATA,
    rf'bash tools/dist_train\.sh {DEMO} \d': (
        'tests/tools/test_distributed.py::test_two_processes_learn_what_one_learns_from_the_averaged_gradients'
    ),
    r'python tools/prepare_digit_scenes\.py': 'tests/tools/test_prepare.py::test_a_devkit_as_mmdet_and_mmseg_read_it',
    r'python tools/benchmarks/lipschitz_loss\.py': 'tests/test_docs.py::test_the_loss_benchmark_runs',
    r'python tools/benchmarks/train_step\.py': 'tests/test_docs.py::test_the_step_benchmark_runs',
    r'python tools/benchmarks/gpu_check\.py': 'tests/gpu/test_gpu_check.py::test_the_report_on_the_cpu',
    r'python tools/benchmarks/soak\.py': 'tests/test_docs.py::test_the_soak_counts_what_could_grow',
    r'python tools/benchmarks/crash_resume\.py': (
        'tests/tools/test_crash_resume.py::test_killed_and_resumed_trainings_end_with_the_bits_of_an_uninterrupted_one'
    ),
    r'python tools/maintenance/pair_table\.py': 'tests/recipes/test_pairs.py::test_a_pair_trains_one_step',
    r'python tools/maintenance/page_tables\.py': 'tests/test_docs.py::test_tables_are_those_of_the_records',
    r'python tools/maintenance/model_zoo\.py --add \S+': (
        'tests/tools/test_model_zoo.py::test_a_finished_run_becomes_an_error_in_the_table_and_the_metafile'
    ),
}


def cases_of(command):
    return [case for pattern, case in CASES.items() if re.fullmatch(pattern, command)]


def commands_that_run(case):
    return [command for command in COMMANDS if cases_of(command) == [case]]


def functions_of(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.fixture(scope='module')
def clone(tmp_path_factory, mnist):
    """A working copy whose data is there already and whose trainings are one short epoch."""
    folder = tmp_path_factory.mktemp('clone') / 'mmlckd'
    files = subprocess.run(['git', 'ls-files'], cwd=ROOT, text=True, capture_output=True, check=True).stdout.split()
    for name in files:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / 'data').mkdir()
    (folder / 'data' / 'mnist5k').symlink_to(mnist)

    def change(path, *changes):
        text = (folder / path).read_text()
        for pattern, replacement in changes:
            text, count = re.subn(pattern, replacement, text)
            assert count, f'{path} has no {pattern}'
        (folder / path).write_text(text)

    one_epoch = r'max_epochs=\d+, val_interval=\d+', 'max_epochs=1, val_interval=1'
    change('configs/_base_/schedules/demo_60e.py', one_epoch)
    change('configs/demo/mnist5k_wrn16-2.py', one_epoch, (r'meta/train\.txt', 'meta/train_100.txt'))
    change('configs/demo/mnist5k_wrn10-1.py', (r'interval=20', 'interval=1'))
    change('configs/demo/mnist5k_wrn16-2_to_wrn10-1.py', (r'epoch_5\.pth', 'epoch_1.pth'))
    return folder


# Commands


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_is_tried_by_one_test(command):
    (case,) = cases_of(command)  # add the command to CASES, with the test that runs it
    if '::' in case:
        path, _, name = case.partition('::')
        assert name in functions_of(path)
    for path in re.findall(r'(?:tools|configs)/[\w./-]+\.\w+', command):
        assert (ROOT / path).is_file(), path


def test_the_commands_of_the_demo_run_in_order(clone):
    commands = commands_that_run(CLONE)
    assert len(commands) >= 6  # the README's
    for command in commands:
        command = re.sub(r'epoch_\d+\.pth', 'epoch_1.pth', command)
        result = run(*shlex.split(command)[1:], cwd=clone, PYTHONPATH=str(clone))
        assert result.returncode == 0, f'{command}\n{result.stderr[-3000:]}'
    assert list((clone / 'work_dirs').glob('student-*.pth'))


@pytest.mark.parametrize('command', commands_that_run(NO_DATA))
def test_a_recipe_without_its_data_says_what_is_missing(command, tmp_path, monkeypatch, capsys):
    """What recipes do on data is in tests/tools/test_classification.py and test_voc.py."""
    _, tool, *arguments = shlex.split(command)
    if tool.endswith('dist_train.sh'):  # which starts this on every process
        arguments.pop(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['tools/train.py', *arguments])
    monkeypatch.setenv('LOCAL_RANK', '0')
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')
    error = capsys.readouterr().err
    assert re.search(r"error: .*\S+ is '\S+', which does not exist: ", error), error


def test_the_commands_of_studies_run(clone, tmp_path):
    """On one training of one short epoch, which the presets share; whole studies are in tests/tools/test_study.py."""
    recipe = 'configs/demo/mnist5k_wrn16-2_to_wrn10-1.py'
    small = ['--data', recipe, '--methods', 'alone', '--seeds', '30', '--work-dir', tmp_path]
    presets = {Path(path).stem for path in ROOT.glob('configs/study/*.py')}
    assert {command.split()[-1] for command in commands_that_run(STUDY)} == presets
    for command in commands_that_run(STUDY):
        result = run(*shlex.split(command)[1:], *small, cwd=clone, PYTHONPATH=str(clone))
        assert result.returncode == 0, f'{command}\n{result.stderr}'
        assert (tmp_path / f'study_{command.split()[-1]}.json').is_file()
    assert len(list(tmp_path.rglob('record.json'))) == 1


def test_the_loss_benchmark_runs(tmp_path, monkeypatch):
    """In this process, on maps a sixteenth as wide, for the oracle's decompositions take half a minute at full
    width.
    """
    import lipschitz_loss

    small = [(channels // 16, size) for channels, size in lipschitz_loss.RESNET50_AT_224]
    monkeypatch.setattr(lipschitz_loss, 'RESNET50_AT_224', small)
    options = dict(batch=1, rounds=2, threads=1, out=tmp_path / 'record.json')
    arguments = [part for name, value in options.items() for part in (f'--{name}', str(value))]
    monkeypatch.setattr(sys, 'argv', ['lipschitz_loss.py', *arguments])
    lipschitz_loss.main()
    assert json.loads((tmp_path / 'record.json').read_text())['results']['ours']['ms'] > 0


def test_the_step_benchmark_runs(tmp_path):
    small = ['--workloads', 'demo_classification', '--batch', '1', '--rounds', '2', '--threads', '1']
    result = run('tools/benchmarks/train_step.py', *small, '--out', tmp_path / 'record.json')
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'record.json').is_file() and (tmp_path / 'record.png').is_file()


def test_the_soak_counts_what_could_grow(mnist, tmp_path):
    folders = ['--data', mnist, '--work-dir', tmp_path, '--out', tmp_path / 'record.json']
    result = run('tools/benchmarks/soak.py', '--iterations', '40', '--every', '1', *folders)
    # It may fail: so short a run is still warming up. It writes its readings all the same.
    assert result.returncode == 0 or 'what grew over the second half' in result.stderr, result.stderr
    readings = json.loads((tmp_path / 'record.json').read_text())['readings']
    assert readings['last']['iter'] == 40
    assert readings['last']['forward_hooks'] == 0  # taps hang on modules within a forward only
    for count in ('runner_hooks', 'scalars'):
        assert readings['last'][count] == readings['middle'][count] > 0, count


@pytest.mark.parametrize('command', commands_that_run(MAKE))
def test_make_knows_its_targets(command):
    """Make only says what it would do: `make test` is what runs this, and what `make demo` runs is in tests/tools."""
    target = command.split()[1]
    result = subprocess.run([*shlex.split(command), '-n'], cwd=ROOT, text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
    does = dict(demo='tools/demo.py', docs='sphinx', lint='ruff').get(target, '')
    assert does in result.stdout


def test_the_package_installs_as_the_pages_say():
    assert commands_that_run(PIP) == ['pip install -e .']
    result = run('-m', 'pip', 'install', '--dry-run', '--no-build-isolation', '--no-deps', '--quiet', '-e', ROOT)
    assert result.returncode == 0, result.stderr


# Python and names


def test_the_recipe_shown_is_the_demos(tmp_path):
    (block,) = [body for page, language, body in BLOCKS if page == 'README.md' and language == 'python']
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs', ignore=shutil.ignore_patterns('records'))
    (tmp_path / 'configs/demo/shown.py').write_text(block)
    shown = Config.fromfile(tmp_path / 'configs/demo/shown.py').model
    assert shown == Config.fromfile(ROOT / 'configs/demo/mnist5k_wrn16-2_to_wrn10-1.py').model


def test_code_blocks_are_of_a_known_language_and_python_is_valid():
    for page, language, body in BLOCKS:
        assert language in ('bash', 'python', 'text', '{toctree}'), f'{page}: a block in {language!r}'
        if language == 'python':
            ast.parse(body, page)


def test_names_of_this_package_exist():
    """`mmlckd.Name`, as configs write it, is registered or exported at the top."""
    import mmlckd

    for page, text in PAGES.items():
        if page not in OF_OTHER_NAMES:
            shown = set(re.findall(r'^class (\w+)', text, re.MULTILINE))  # of an example on the page
            for name in set(re.findall(r'\bmmlckd\.([A-Z]\w+)', text)) - {'Name'} - shown:
                known = [registry.get(f'mmlckd.{name}') for registry in (mmlckd.MODELS, mmlckd.HOOKS, mmlckd.LOOPS)]
                known += [registry.get(f'mmlckd.{name}') for registry in (mmlckd.DATASETS, mmlckd.OPTIM_WRAPPERS)]
                assert any(known) or hasattr(mmlckd, name), f'{page}: mmlckd.{name}'


# Links, paths and form

LINK = re.compile(r'(?<!\\)\[(?:[^][]|\[[^][]*\])*\]\(([^)\s]+)\)')


def without_code(text):
    return re.sub(r'(`+)(?!`).+?(?<!`)\1(?!`)', '', text)


@cache
def anchors_of(path):
    """The anchors that GitHub gives to a page's headings."""
    anchors, seen = set(), {}
    for heading in re.findall(r'^#+ (.+)$', FENCED.sub('', path.read_text()), re.MULTILINE):
        heading = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading)
        slug = re.sub(r'[^\w\- ]', '', heading.strip().lower()).replace(' ', '-')
        anchors.add(f'{slug}-{seen[slug]}' if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return anchors


def is_kept(path):
    """Whether git keeps the file, or would."""
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard', str(path)]
    return path.is_file() and bool(subprocess.run(command, cwd=ROOT, text=True, capture_output=True).stdout)


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_to_files_and_headings(page):
    broken = []
    for target in set(LINK.findall(without_code(PROSE[page]))):
        if re.match(r'https?://', target):
            continue
        name, _, anchor = target.partition('#')
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        if not is_kept(path) or (anchor and anchor not in anchors_of(path)):
            broken.append(target)
    assert not broken


# These tell of files that are gone, or of names that a user got wrong.
OF_OTHER_NAMES = ('CHANGELOG.md', 'docs/wrong_input.md')


@pytest.mark.parametrize('page', [page for page in PAGES if page not in OF_OTHER_NAMES])
def test_paths_in_the_text_exist(page):
    names = r'(?<![\w./<])((?:configs|docs|mmlckd|tests|tools|requirements)/[\w./-]+\.(?:py|sh|txt|png|md|json|yml))\b'
    for path in set(re.findall(names, LINK.sub('', PAGES[page]))):
        if not re.search(r'/my', path):  # a reader's own
            assert (ROOT / path).is_file(), path


def test_the_readme_is_one_sitting():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize('page', PAGES)
def test_lines_have_120_columns_where_tables_allow(page):
    generated = re.compile(r'^<!-- table: .*?^<!-- end -->$', re.MULTILINE | re.DOTALL)
    lines = generated.sub('', PAGES[page]).splitlines()
    long = [line for line in lines if len(line) > 120 and not line.startswith(('|', 'python ', '!['))]
    assert not long


# Tables and the reference


@pytest.mark.ops  # it builds the students of all recipes
def test_tables_are_those_of_the_records():
    """And those of the recipes, and the metafile, are the configs' too."""
    for path, text in page_tables.written().items():
        assert path.read_text() == text, f'{path}: run tools/maintenance/page_tables.py'


def test_every_table_has_a_page():
    places = {name for text in PAGES.values() for name in marked_names(text)}
    assert places == set(page_tables.TABLES)


def test_the_model_index_lists_every_recipe():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    models = [model for path in index['Import'] for model in yaml.safe_load((ROOT / path).read_text())['Models']]
    assert [ROOT / model['Config'] for model in models] == sorted((ROOT / 'configs/lckd').glob('*.py'))


def test_the_reference_has_every_package():
    """`make docs` sees that whatever a package exports has a docstring that reads."""
    text = ''.join(path.read_text() for path in (ROOT / 'docs/reference').glob('*.rst'))
    described = set(re.findall(r'automodule:: (\S+)', text))
    folders = {f'mmlckd.{path.parent.name}' for path in ROOT.glob('mmlckd/*/__init__.py')}
    files = {f'mmlckd.{path.stem}' for path in ROOT.glob('mmlckd/*.py')} - {'mmlckd.__init__', 'mmlckd.version'}
    assert described == folders | files
