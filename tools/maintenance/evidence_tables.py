"""What distillation gained: the tables of the demos and of the studies, made from their records."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from marked_text import paragraph, table

from mmlckd.study.aims import verdicts
from mmlckd.study.cell import method_title
from mmlckd.study.tables import (
    Contrast,
    by_method,
    comparison_rows,
    contrasts,
    mean_and_deviation,
    result_rows,
    values,
    with_cost,
)

ROOT = Path(__file__).resolve().parents[2]
DEMO_RECORDS = ROOT / 'configs' / 'demo' / 'records'
STUDY_RECORDS = ROOT / 'configs' / 'study' / 'records'


def demo_table(task: str) -> str:
    """Teacher, student alone and guided student of one demo, over the recorded seeds."""
    records = [json.loads(path.read_text()) for path in sorted(DEMO_RECORDS.glob(f'demo_{task}_seed*.json'))]
    rows = [demo_row(name, [record['results'][name] for record in records]) for name in records[0]['results']]
    start, end = (statistics.mean(record['distance_through_connectors'][i] for record in records) for i in (0, 1))
    seeds = ', '.join(str(record['seed']) for record in records)
    note = (
        f'Mean ± standard deviation over seeds {seeds}; all share one teacher. Lipschitz distance: mean of '
        '\\|log(student norm / teacher norm)\\| over pairs of taps and 400 test images, before and after training, on '
        f'the maps themselves. Through the connectors, where the loss compares the maps, it goes from {start:.2f} to '
        f'{end:.2f}. '
        f'torch {records[0]["torch"]}, 2 CPU cores.'
    )
    header = ['', 'parameters', records[0]['metric'], 'seeds', 'Lipschitz distance to the teacher']
    return f'{table(header, rows)}\n\n{paragraph(note)}'


def demo_row(name: str, results: list[dict]) -> list:
    """One network's row; ``results`` has an entry for each seed, and equal ones for the one teacher."""
    values = [result['value'] for result in results]
    if len(set(values)) == 1:
        values = values[:1]
    distance = ''
    if results[0].get('before') is not None:
        before, after = (statistics.mean(result[key] for result in results) for key in ('before', 'after'))
        distance = f'{before:.2f} to {after:.2f}'
    return [name, f'{results[0]["parameters"]:,}', mean_and_deviation(values), len(values), distance]


def study_record(name: str) -> dict:
    """What tools/study.py wrote: records, and the study's own comparisons and aims."""
    return dict(compare=[], aims=[]) | json.loads((STUDY_RECORDS / f'study_{name}.json').read_text())


def study_tables(name: str) -> str:
    """Results and comparisons of a study."""
    study = study_record(name)
    records, found = study['records'], contrasts(study['records'], study['compare'])
    tables = {**result_rows(records), **comparison_rows(found)}
    parts = [f'{title}:\n\n{table(header, rows)}' for title, (header, rows) in tables.items()]
    parts += ['\n'.join(f'- {sentence}' for sentence in verdicts(found, study['aims']))]
    return '\n\n'.join([*filter(None, parts), paragraph(study_note(records, found))])


def study_note(records: list[dict], found: list[Contrast]) -> str:
    """What the numbers of a study are, and where they are from."""
    seeds = ', '.join(map(str, sorted({record['seed'] for record in records})))
    units = 'Results are in %, noise and attacks in pixel values. '
    meanings = {
        'blur 1': 'Blur is in pixels. ',
        'local constant': 'Local constants are in logits per pixel value. ',
        'log loss': 'Log loss is in nats, and calibration the expected calibration error in points. ',
    }
    units += ''.join(meaning for measure, meaning in meanings.items() if measure in records[0])
    if 'cost' in with_cost(records)[0]:
        units += 'Cost is the time of training in that of the student alone. '
    note = f'Mean ± standard deviation over seeds {seeds}. {units}'
    if found:
        tests = sum(len(contrast.results) for contrast in found)
        note += (
            f'Differences are paired by seed, with 95 % intervals. p: paired t tests, adjusted for all {tests} of the '
            'table (Holm). Best: the best method with the term against the best without it, both chosen in validation. '
        )
    return note + (f'torch {records[0]["versions"]["torch"]}, {records[0]["machine"]}, commit {records[0]["commit"]}.')


def gain_table(name: str) -> str:
    """What the Lipschitz term adds to each method of a study in test accuracy."""
    records = study_record(name)['records']
    added = {
        (contrast.data, contrast.baseline): contrast.results['test']
        for contrast in contrasts(records)
        if contrast.method[:-1] == contrast.baseline
    }
    groups = by_method(records)
    rows = []
    for baseline in dict.fromkeys(baseline for _, baseline in added):
        row = [method_title(baseline)]
        for data, methods in groups.items():
            gain = added[data, baseline]
            without = statistics.fmean(values(methods[baseline], 'test'))
            row += [f'{without:.2f}', f'{gain.difference:+.2f} ± {gain.half_width:.2f}']
        rows.append(row)
    header = ['student trained by', *(cell for data in groups for cell in (f'{data}, %', 'with the term'))]
    seeds = {record['seed'] for record in records}
    note = (
        f'Test accuracy over {len(seeds)} seeds, and what the Lipschitz term adds to it in points, paired by seed, '
        'with 95 % intervals. KD distils logits, OFD features, AT attention maps.'
    )
    return f'{table(header, rows)}\n\n{paragraph(note)}'
