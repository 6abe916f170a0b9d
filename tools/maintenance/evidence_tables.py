"""What distillation gained: the tables of the demos and of the studies, made from their records."""

from __future__ import annotations

import json
import statistics
from operator import truediv
from pathlib import Path

from marked_text import item, paragraph, table

from mmlckd.study.aims import verdicts
from mmlckd.study.cell import method_title
from mmlckd.study.tables import (
    MEASURES,
    Contrast,
    by_method,
    comparison_rows,
    contrasts,
    mean_and_deviation,
    result_rows,
    values,
    with_cost,
    with_interval,
)

ROOT = Path(__file__).resolve().parents[2]
DEMO_RECORDS = ROOT / 'configs' / 'demo' / 'records'
STUDY_RECORDS = ROOT / 'configs' / 'study' / 'records'


def demo_table(task: str) -> str:
    """Teacher, student alone and distilled student of one demo, over the recorded seeds."""
    records = [json.loads(path.read_text()) for path in sorted(DEMO_RECORDS.glob(f'demo_{task}_seed*.json'))]
    first, shown = records[0], ['test', *records[0]['shown']]
    rows = [demo_row(name, [record['results'][name] for record in records], shown) for name in first['results']]
    seeds = ', '.join(str(record['seed']) for record in records)
    sentences = (
        f'Mean ± standard deviation over seeds {seeds}; all share one teacher.',
        first['legend'],
        f'torch {first["torch"]}, 2 CPU cores.',
    )
    header = ['', 'parameters', first['metric'], *(MEASURES[name][0] for name in first['shown'])]
    return f'{table(header, rows)}\n\n{paragraph(" ".join(sentences))}'


def demo_row(name: str, results: list[dict], shown: list[str]) -> list[str]:
    """One network's row; ``results`` has an entry for each seed, and equal ones for the one teacher."""
    if len({result['test'] for result in results}) == 1:
        results = results[:1]
    cells = [mean_and_deviation([result[measure] for result in results], MEASURES[measure][1]) for measure in shown]
    return [name, f'{results[0]["parameters"]:,}', *cells]


def study_record(name: str) -> dict:
    """What tools/study.py wrote: records, and the study's own comparisons and aims."""
    return dict(compare=[], aims=[]) | json.loads((STUDY_RECORDS / f'study_{name}.json').read_text())


def study_tables(name: str) -> str:
    """Results and comparisons of a study."""
    study = study_record(name)
    records, found = study['records'], contrasts(study['records'], study['compare'])
    tables = {**result_rows(records), **comparison_rows(found)}
    parts = [f'{title}:\n\n{table(header, rows)}' for title, (header, rows) in tables.items()]
    parts += ['\n'.join(item(sentence) for sentence in verdicts(found, study['aims']))]
    return '\n\n'.join([*filter(None, parts), paragraph(study_note(records, found))])


def study_note(records: list[dict], found: list[Contrast]) -> str:
    """What the numbers of a study are, and where they are from."""
    seeds = ', '.join(map(str, sorted({record['seed'] for record in records})))
    units = 'Results are in %, noise and attacks in pixel values. '
    meanings = {
        'blur 2': 'Blur is in pixels. ',
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
    commits = list(dict.fromkeys(record['commit'] for record in records))
    origin = f'torch {records[0]["versions"]["torch"]}, {records[0]["machine"]}'
    return f'{note}{origin}, commit{"s" * (len(commits) > 1)} {", ".join(commits)}.'


def gain_table(name: str) -> str:
    """What each Lipschitz term adds to each method of a study, in test accuracy and under attack."""
    records = study_record(name)['records']
    groups, measures = by_method(records), ('test', 'FGSM 8')
    added = {
        (contrast.data, contrast.baseline, contrast.method[-1]): contrast
        for contrast in contrasts(records)
        if contrast.method[:-1] == contrast.baseline
    }
    terms = dict(lipschitz='transmitting norms', lipschitz_local='local guidance')
    rows = []
    for data, baseline in dict.fromkeys((data, baseline) for data, baseline, _ in added):
        row = [data, method_title(baseline)]
        for measure in measures:
            row.append(f'{statistics.fmean(values(groups[data][baseline], measure)):.2f}')
            row += [gain(added.get((data, baseline, term)), measure) for term in terms]
        rows.append(row)
    columns = [cell for measure in measures for cell in (MEASURES[measure][0], *terms.values())]
    seeds = {record['seed'] for record in records}
    note = (
        f'Means over {len(seeds)} seeds, and what each term adds in points, paired by seed, with 95 % intervals. Bold: '
        'beyond chance, with all tests of the study counted. KD distils logits, OFD features.'
    )
    return f'{table(["", "student trained by", *columns], rows)}\n\n{paragraph(note)}'


def rivals_table(name: str) -> str:
    """A study's guided method against each rival: its cost, and differences in accuracy, under noise and attack."""
    study = study_record(name)
    records, guided = with_cost(study['records']), tuple(study['compare'][0][0])
    groups, measures = by_method(records), ('test', 'noise 32', 'FGSM 8')
    found = {(c.baseline, c.data): c for c in contrasts(records, study['compare']) if c.method == guided}
    rows = []
    for rival in sorted({baseline for baseline, _ in found}, key=[*next(iter(groups.values()))].index):
        ours, theirs = (
            [statistics.fmean(values(group[name], 'cost')) for group in groups.values()] for name in (guided, rival)
        )
        row = [method_title(rival), f'{statistics.fmean(map(truediv, ours, theirs)):.1f}']
        for measure in measures:
            rows.append([*row, MEASURES[measure][0], *(gain(found.get((rival, data)), measure) for data in groups)])
            row = ['', '']
    note = (
        f'{method_title(guided)}, against each rival: points, paired by seed, with 95 % intervals. Bold: beyond '
        'chance, with all tests of the study counted. Cost: in trainings of the rival, mean over the sets.'
    )
    return f'{table(["against", "cost", "", *groups], rows)}\n\n{paragraph(note)}'


def gain(contrast: Contrast | None, measure: str) -> str:
    """A difference with its interval, bold if its adjusted p-value is below 0.05."""
    if contrast is None:
        return ''
    result = contrast.results[measure]
    text = with_interval(result)
    return f'**{text}**' if contrast.adjusted[measure] < 0.05 else text
