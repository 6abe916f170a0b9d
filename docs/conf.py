"""The site that `make docs` builds: every page of the repository, where it is, and a reference from the docstrings."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

project = 'mmlckd'
author = 'The mmlckd authors'
version = release = (ROOT / 'mmlckd' / 'version.py').read_text().split("'")[1]

# The source folder is the repository, so that a page's links hold on the site as they do in the repository.
listed = ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '*.md', 'docs/*.rst']
include_patterns = subprocess.run(listed, cwd=ROOT, text=True, capture_output=True, check=True).stdout.split()
exclude_patterns = ['.*', '**/.*', 'build', 'data', 'work_dirs', 'mmlckd', 'tests']
root_doc = 'docs/index'
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
myst_heading_anchors = 4

html_theme = 'furo'
html_title = f'mmlckd {release}'
html_extra_path = ['root']  # index.html, which leads to docs/index.html
html_copy_source = False

# Docstrings: Google's sections, single backticks for code, types in annotations alone.
default_role = 'code'
highlight_language = 'none'
smartquotes = False
napoleon_numpy_docstring = False
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented_params'
autodoc_inherit_docstrings = False  # MMEngine's hooks and torch's modules have their own pages
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': True}
# Names of this package must resolve. Others would need their projects' inventories, which come from the internet.
nitpicky = True
nitpick_ignore_regex = [
    ('py:.*', r'(?!mmlckd\.)[a-z_]+\..*'),
    ('py:.*', r'mmlckd(\.\w+){3}'),  # in annotations: classes that no package exports
    ('py:class', 'Tensor'),  # in annotations of a class's __init__, which Sphinx reads as text
]

SECTION = re.compile(r'(Args|Attributes|Example|Examples|Note|Raises|Returns|Source|Yields):')
BARS = re.compile(r'\|(?=\S)([^|`]*[^|`\s])\|')


def set_formulas(app, what, name, obj, options, lines):
    """Keep a docstring's formulas as they are: indented blocks before the first section, and bars in the text."""
    text, formula, sections, source = [], False, False, False
    for line in lines:
        sections = sections or bool(SECTION.match(line))
        source = line.startswith('Source:') or (source and bool(line))
        if source:
            line = line.strip()  # which may have a hanging indent
        indented = line.startswith('    ') and not sections
        if indented and not formula and not (text and text[-1]) and not introduced(text):
            text += ['::', '']
        formula = indented or (formula and not line)
        text.append(line if formula else BARS.sub(r'\|\1\|', line))
    if what in ('attribute', 'property', 'data'):
        text[:0] = ['..', '']  # or napoleon would take what is before a first colon for a type
    lines[:] = text


def introduced(text):
    """Whether the last paragraph announces a literal block, or is a list item that may go on."""
    last = next((line for line in reversed(text) if line), '')
    return last.endswith('::') or last.startswith(('- ', '  ', '.. '))


def setup(app):
    app.connect('autodoc-process-docstring', set_formulas, priority=100)  # before napoleon
