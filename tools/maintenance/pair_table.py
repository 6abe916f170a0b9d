"""Try the pairs of tools/maintenance/pairs.py, and keep what came of it in docs/pairs.json.

    python tools/maintenance/pair_table.py                    # all pairs, 10 to 20 minutes on two cores
    python tools/maintenance/pair_table.py --only 'RTMDet'    # those whose name has this word
    python tools/maintenance/page_tables.py                   # writes the page

The networks have random weights, and the images are random too: what is seen is that a pair builds and trains.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pair_trial import try_pair
from pairs import PAIRS, Pair
from rich.progress import track

from mmlckd.cli import run_tool

RECORD = Path(__file__).resolve().parents[2] / 'docs' / 'pairs.json'


def record() -> dict:
    """What was found when the pairs were tried last."""
    return json.loads(RECORD.read_text())


def table(host: str) -> str:
    """The pairs of a host, one a line, and what works."""
    found, rows = record()['pairs'], []
    for pair in PAIRS:
        if pair.student.startswith(f'{host}::'):
            rows.append(_row(pair, found.get(pair.name, dict(fails='not tried'))))
    head = ['| teacher to student | works | compared at strides | losses | lines written by the user |']
    return '\n'.join([*head, '| --- | --- | --- | --- | ---: |', *rows])


def _row(pair: Pair, found: dict) -> str:
    if 'fails' in found:
        reason = found['fails'].replace('|', r'\|')
        return f'| {pair.name} | no: {reason} |  |  |  |'
    strides = ', '.join(map(str, found['strides']))
    return f'| {pair.name} | yes | {strides} | {", ".join(found["losses"])} | 0 |'


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--only', default='', help='try the pairs whose name has this word; keep what is known of others'
    )
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def main(args):
    found = record()['pairs'] if RECORD.is_file() else {}
    failed = []
    for pair in track([pair for pair in PAIRS if args.only in pair.name]):
        found[pair.name] = try_pair(pair)
        keep(found)  # at once: a run that is interrupted loses nothing
        failed += [pair.name] if 'fails' in found[pair.name] else []
    print('\n'.join([f'{len(failed)} pairs fail', *failed]))


def keep(found: dict[str, dict]) -> None:
    """Write the record, in the order of the pairs; pairs that are tried no more are dropped."""
    pairs = {pair.name: found[pair.name] for pair in PAIRS if pair.name in found}
    RECORD.write_text(json.dumps(dict(pairs=pairs), indent=1) + '\n')


if __name__ == '__main__':
    run_tool(main, make_parser())
