"""Fill the marked tables of every page, and write the recipes' metafile, from the records of runs.

    python tools/maintenance/page_tables.py

A table's place on a page begins with the line <!-- table: NAME --> and ends with <!-- end -->. A record is the JSON
file that tools/demo.py, tools/study.py or a benchmark wrote: copy a new one over the old one in configs/demo/records,
configs/study/records or tools/benchmarks/records, and run this. Results of recipes come from
tools/maintenance/model_zoo.py.
"""

from __future__ import annotations

import argparse
import subprocess
from functools import partial
from pathlib import Path

import cost_tables
import evidence_tables
import message_tables
import pair_table
import recipe_tables
from marked_text import filled

from mmlckd.cli import run_tool

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted(path.stem.removeprefix('study_') for path in evidence_tables.STUDY_RECORDS.glob('study_*.json'))
TABLES = {
    'demo_classification': partial(evidence_tables.demo_table, 'classification'),
    'demo_detection': partial(evidence_tables.demo_table, 'detection'),
    'demo_segmentation': partial(evidence_tables.demo_table, 'segmentation'),
    **{f'study_{name}': partial(evidence_tables.study_tables, name) for name in STUDIES},
    'gain': partial(evidence_tables.gain_table, 'readme'),
    'rivals': partial(evidence_tables.rivals_table, 'readme'),
    'lipschitz_loss': cost_tables.loss_table,
    'train_step': cost_tables.step_table,
    'gpu': cost_tables.gpu_table,
    'crash_resume': cost_tables.crash_table,
    'soak': cost_tables.soak_sentence,
    'classification': recipe_tables.classification_table,
    'recipes': recipe_tables.voc_table,
    **{f'pairs_{host}': partial(pair_table.table, host) for host in ('mmpretrain', 'mmseg', 'mmdet')},
    'wrong_options': partial(message_tables.message_table, 'OPTIONS'),
}


def pages() -> list[Path]:
    """The Markdown files of the repository, those that git does not know yet included."""
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '*.md']
    names = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout.splitlines()
    return [ROOT / name for name in sorted(names) if (ROOT / name).is_file()]


def written() -> dict[Path, str]:
    """Every page as it should be, and the metafile."""
    texts = {}
    for page in pages():
        try:
            texts[page] = filled(page.read_text(), TABLES)
        except ValueError as error:
            raise ValueError(f'{page.relative_to(ROOT)}: {error}') from error
    return {**texts, recipe_tables.ZOO / 'metafile.yml': recipe_tables.metafile()}


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def main(args=None):
    for path, text in written().items():
        if text != path.read_text():
            path.write_text(text)
            print(f'{path.relative_to(ROOT)}: written')


if __name__ == '__main__':
    run_tool(main, make_parser())
