"""Marked places in pages: filled, kept, and refused where a name or an end is missing."""

from __future__ import annotations

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / 'tools' / 'maintenance'))
import page_tables  # noqa: E402  a tool, not a package
from marked_text import filled, marked_names, table  # noqa: E402

PAGE = 'before\n\n<!-- table: one -->\nold\n\nold\n<!-- end -->\n\nbetween\n<!-- table: two -->\n<!-- end -->\nafter\n'
TABLES = dict(one=lambda: 'first', two=lambda: 'second\n\\1')


def test_places_are_filled_and_the_rest_is_kept():
    text = filled(PAGE, TABLES)
    assert text == (
        'before\n\n<!-- table: one -->\nfirst\n<!-- end -->\n\nbetween\n'
        '<!-- table: two -->\nsecond\n\\1\n<!-- end -->\nafter\n'
    )
    assert filled(text, TABLES) == text
    assert marked_names(text) == ['one', 'two']


def test_marks_within_a_line_are_text():
    text = 'write `<!-- table: NAME -->` and <!-- table: other -->\n'
    assert filled(text, {}) == text


@pytest.mark.parametrize(
    'text, sentence',
    [
        ('<!-- table: three -->\n<!-- end -->\n', "nothing makes the table 'three': use one of 'one', 'two'"),
        ('<!-- table: one -->\nold\n', "the place for the table 'one' has no end"),
        ('<!-- table: one -->\n<!-- table: two -->\n<!-- end -->\n', "the place for the table 'one' has no end"),
    ],
)
def test_a_place_with_a_wrong_name_or_no_end_is_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        filled(text, TABLES)


def test_the_page_is_named_where_a_place_is_wrong(tmp_path, monkeypatch):
    (tmp_path / 'page.md').write_text('<!-- table: three -->\n<!-- end -->\n')
    monkeypatch.setattr(page_tables, 'ROOT', tmp_path)
    monkeypatch.setattr(page_tables, 'pages', lambda: [tmp_path / 'page.md'])
    with pytest.raises(ValueError, match="^page.md: nothing makes the table 'three'"):
        page_tables.written()


def test_a_table():
    assert table(['', 'a'], [['x', 1]]) == '|  | a |\n| --- | ---: |\n| x | 1 |'
