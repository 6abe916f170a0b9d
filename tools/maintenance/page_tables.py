"""Write the tables of README.md from the records in tools/benchmarks/records.

    python tools/maintenance/page_tables.py

A record is the JSON file that tools/demo.py or a benchmark wrote; copy a new one over the old and run this. The recipes' own page is
tools/maintenance/model_zoo.py's.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from functools import partial
from pathlib import Path

from mmlckd.study.tables import comparison_rows, contrasts, result_rows, verdicts

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / 'tools' / 'benchmarks' / 'records'


PHASES = dict(
    start='before the first iteration',
    iteration='within an iteration',
    writing='while a checkpoint was written',
    written='between a checkpoint and the evaluation',
    evaluation='within an evaluation',
    evaluated='after an evaluation',
)


def table(header, rows):
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def demo_table(task):
    records = [
        json.loads(path.read_text())
        for path in sorted((ROOT / 'configs' / 'demo' / 'records').glob(f'demo_{task}_seed*.json'))
    ]
    rows = []
    for name, first in records[0]['results'].items():
        results = [record['results'][name] for record in records]
        values = [result['value'] for result in results]
        seeds = len(set(values)) if len(set(values)) == 1 else len(values)
        value = f'{statistics.mean(values):.2f}' + (f' ± {statistics.stdev(values):.2f}' if seeds > 1 else '')
        before, after = ([result.get(key) for result in results] for key in ('before', 'after'))
        distance = f'{statistics.mean(before):.2f} to {statistics.mean(after):.2f}' if before[0] is not None else ''
        rows.append([name, f'{first["parameters"]:,}', value, seeds, distance])
    connectors = [statistics.mean(record['distance_through_connectors'][i] for record in records) for i in (0, 1)]
    note = (
        f'Mean ± standard deviation over seeds {", ".join(str(record["seed"]) for record in records)}; one teacher for all. '
        f'Distance: mean of \\|log(student norm / teacher norm)\\| over pairs and 400 test images, untrained to trained, on the maps '
        f'themselves; through the connectors, where the loss compares them, it goes from {connectors[0]:.2f} to {connectors[1]:.2f}. '
        f'torch {records[0]["torch"]}, 2 CPU cores.'
    )
    return (
        table(['', 'parameters', records[0]['metric'], 'seeds', 'Lipschitz distance to the teacher'], rows)
        + '\n\n'
        + note
    )


def loss_table():
    record = json.loads((RECORDS / 'lipschitz_loss.json').read_text())
    rows = [
        [name, f'{row["ms"]:.0f}', f'{row["speedup"]:.1f} x', f'{row["peak_mib"]:.0f}', f'{row["extra_mib"]:.0f}']
        for name, row in record['results'].items()
    ]
    targets = '; '.join(
        f'{name}: {"met" if target["met"] else "missed"} ({target["reached"]})'
        for name, target in record['targets'].items()
    )
    shares = ', '.join(f'{row["op"].removeprefix("aten::")} {row["share"]:.0%}' for row in record['profile'])
    return (
        table(['', 'ms', 'faster', 'peak MiB', 'peak MiB beyond the gradients'], rows)
        + '\n\n'
        + f'Batch {record["batch"]}, {record["threads"]} threads, torch {record["torch"]}. '
        f'Targets: {targets}. Where our time goes: {shares}.'
    )


def step_table():
    record = json.loads((RECORDS / 'train_step.json').read_text())
    rows, verdicts = [], []
    for workload in record['workloads'].values():
        variants = workload['variants']
        ratios = [
            f'{variants[name]["ratio"]:.2f}'
            for name in (
                'student alone',
                'Lipschitz alone, no connectors',
                'ours',
                'ours, teacher in half precision',
                'naive',
            )
        ]
        memory = variants['ours']['peak_mib'] / variants['floor']['peak_mib']
        rows.append(
            [
                f'`{Path(workload["config"]).stem}`, {workload["batch"]} x {workload["size"]} px',
                f'{variants["floor"]["ms"]:.0f}',
                *ratios,
                f'{memory:.2f}',
                f'{workload["hook"]["share"]:.2%}',
            ]
        )
        verdicts += [
            (f'{title}, {Path(workload["config"]).stem}', target) for title, target in workload['targets'].items()
        ]
    missed = '; '.join(
        f'{title}: {target["reached"]} ({target["target"]})' for title, target in verdicts if not target['met']
    )
    rounds = ' to '.join(map(str, sorted({workload['rounds'] for workload in record['workloads'].values()})))
    header = [
        'step',
        'floor, ms',
        'student alone',
        'Lipschitz alone',
        'ours',
        'ours, teacher in bf16',
        'naive',
        'peak memory',
        'hook',
    ]
    note = (
        "Times as parts of the floor, the student's step and the teacher's forward to its deepest tap: medians of "
        f'{rounds} rounds in turns, {record["threads"]} threads, {record["device"]}, torch {record["torch"]}, '
        f'{record["units"]}. Lipschitz alone: without connectors and other losses. Ours: the recipe, with connectors and OFD. '
        "Naive: the teacher through its own heads and losses. Peak memory: ours, of the floor's. Hook: share of training that "
        "reading every layer's norm takes. "
        f'Targets met: {sum(target["met"] for _, target in verdicts)} of {len(verdicts)}; missed: {missed or "none"}.'
    )
    return table(header, rows) + '\n\n' + note


def crash_table():
    record = json.loads((RECORDS / 'crash_resume.json').read_text())
    groups, rows = {}, []
    for row in record['rows']:
        groups.setdefault((row['signal'], list(PHASES).index(row['fell_in'])), []).append(row)
    for (signal, phase), group in sorted(groups.items()):
        rows.append(
            [
                f'{signal}, {list(PHASES.values())[phase]}',
                len(group),
                sum(bool(row['half_written']) for row in group),
                max(row['repeated'] for row in group),
                sum(not row['differs'] for row in group),
            ]
        )
    note = (
        f'{record["epochs"]} epochs of 4 iterations with a checkpoint and an evaluation each, no more than one checkpoint kept, '
        f'student with dropout and averaged weights, moments of seed {record["seed"]}, torch {record["torch"]}.'
    )
    header = [
        'ended by',
        'times',
        'left a half-written file',
        'iterations repeated, at most',
        'ended with the same bits',
    ]
    return table(header, rows) + '\n\n' + note


def soak_sentence():
    record = json.loads((RECORDS / 'soak.json').read_text())
    middle, last = record['readings']['middle'], record['readings']['last']
    history = (
        last['scalars'] * 16 * (last['iter'] - middle['iter']) / 2**20
    )  # two 64-bit numbers each, kept by MMEngine's log history
    return (
        f'In a run of {record["iterations"]:,} iterations memory stays flat: over the second half it grew by '
        f'{record["growth_mib"]:.2f} MiB of {last["rss_mib"]:,.0f}, {history:.2f} of them the history of the logged numbers; '
        f'single readings scatter by {record["scatter_mib"]:.1f} MiB.\n'
        '`tools/benchmarks/soak.py` also counts hooks, tensors, open files and threads, and fails where any of these grows.'
    )


def study_tables(name):
    """Results and comparisons of a study, from the file that tools/study.py wrote."""
    records = json.loads((ROOT / 'configs' / 'study' / 'records' / f'study_{name}.json').read_text())['records']
    parts = [
        f'{title}:\n\n{table(header, rows)}'
        for title, (header, rows) in {**result_rows(records), **comparison_rows(records)}.items()
    ]
    seeds = sorted({record['seed'] for record in records})
    seconds = sum(record['seconds'] for record in records)
    tests = sum(len(contrast.results) for contrast in contrasts(records))
    robust = (
        'noise and FGSM in pixel values, local constants in logits per pixel value. '
        if 'local constant' in records[0]
        else ''
    )
    note = (
        f'Mean ± standard deviation over seeds {", ".join(map(str, seeds))}; results in %{", " if robust else ". "}{robust}'
        f'Differences are paired by seed, with 95 % intervals; p: paired t tests, adjusted for all {tests} of the table (Holm). '
        'Best: of the methods with the term, and without it, those best in validation. '
        f'What was aimed at for the best: {"; ".join(verdicts(records))}. '
        f'torch {records[0]["versions"]["torch"]}, {records[0]["machine"]}, commit {records[0]["commit"]}, '
        f'{seconds / 3600:.1f} hours of one core.'
    )
    return '\n\n'.join([*parts, note])


def with_table(text, name, content):
    """A page with the content between one table's marks replaced."""
    pattern = rf'(<!-- table: {name} -->\n).*?(<!-- end -->)'
    text, count = re.subn(pattern, lambda match: f'{match[1]}{content}\n{match[2]}', text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f'the page has {count} places for the table {name!r}: one is needed')
    return text


TABLES = {
    **{f'demo_{task}': partial(demo_table, task) for task in ('classification', 'detection', 'segmentation')},
    'lipschitz_loss': loss_table,
    'train_step': step_table,
    'crash_resume': crash_table,
    'soak': soak_sentence,
    **{
        f'study_{path.stem.removeprefix("study_")}': partial(study_tables, path.stem.removeprefix('study_'))
        for path in sorted((ROOT / 'configs' / 'study' / 'records').glob('study_*.json'))
    },
}


def rendered():
    """README.md with its tables made anew."""
    text = (ROOT / 'README.md').read_text()
    for name, make in TABLES.items():
        text = with_table(text, name, make())
    return text


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    (ROOT / 'README.md').write_text(rendered())
    print(f'README.md: {", ".join(TABLES)}')


if __name__ == '__main__':
    main()
