"""A study's records as rows of tables."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from .cell import method_title
from .statistics import Comparison, compare, holm

Table = tuple[list[str], list[list[str]]]
MEASURES = {
    'test': 'test %',
    'noise 32': 'noise 32',
    'noise 64': 'noise 64',
    'FGSM 8': 'FGSM 8',
    'gap': 'train - test',
    'local constant': 'local constant',
}
COMPARED = ('test', 'noise 32', 'noise 64')


def by_method(records: list[dict]) -> dict[str, dict[tuple[str, ...], list[dict]]]:
    """Data set to method to its records, ordered by seed."""
    groups: dict[str, dict[tuple[str, ...], list[dict]]] = {}
    for record in sorted(records, key=lambda record: record['seed']):
        groups.setdefault(record['data'], {}).setdefault(tuple(record['method']), []).append(record)
    return groups


def values(records: list[dict], measure: str) -> list[float]:
    if measure == 'gap':
        return [record['train'] - record['test'] for record in records]
    return [record[measure] for record in records]


def strongest(groups: dict[tuple[str, ...], list[dict]], guided: bool) -> tuple[str, ...]:
    """Of the methods with, or without, a Lipschitz term the one with the best mean validation result."""
    names = [method for method in groups if is_guided(method) == guided]
    return max(names, key=lambda method: statistics.fmean(values(groups[method], 'validation')), default=None)


def is_guided(method: tuple[str, ...]) -> bool:
    return any(name.startswith('lipschitz') for name in method)


def mean_and_deviation(numbers: list[float], digits: int = 2) -> str:
    deviation = f' ± {statistics.stdev(numbers):.{digits}f}' if len(numbers) > 1 else ''
    return f'{statistics.fmean(numbers):.{digits}f}{deviation}'


def result_rows(records: list[dict]) -> dict[str, Table]:
    """For each data set: every method, its results as mean and standard deviation over seeds."""
    tables = {}
    for data, groups in by_method(records).items():
        measures = [name for name in MEASURES if name == 'gap' and 'train' in records[0] or name in records[0]]
        rows = [
            [
                method_title(method),
                *(mean_and_deviation(values(group, name), 3 if 'local' in name else 2) for name in measures),
            ]
            for method, group in groups.items()
        ]
        tables[data] = (['', *(MEASURES[name] for name in measures)], rows)
    return tables


class Contrast(NamedTuple):
    """A method against another on a data set: the comparison of each measure, with its p-value adjusted for all of the table's."""

    data: str
    method: tuple[str, ...]
    baseline: tuple[str, ...]
    strongest: bool
    results: dict[str, Comparison]
    adjusted: dict[str, float]


def contrasts(records: list[dict]) -> list[Contrast]:
    """What the Lipschitz term adds to each method, and the strongest method with it against the strongest without."""
    found = []
    for data, groups in by_method(records).items():
        pairs = [(method, method[:-1]) for method in groups if is_guided(method) and method[:-1] in groups]
        best = strongest(groups, True), strongest(groups, False)
        for method, baseline in [*pairs, *([best] if None not in best and best not in pairs else [])]:
            seeds = {record['seed'] for record in groups[method]} & {record['seed'] for record in groups[baseline]}
            if len(seeds) > 1:
                sides = [[record for record in groups[name] if record['seed'] in seeds] for name in (method, baseline)]
                results = {
                    measure: compare(*(values(side, measure) for side in sides))
                    for measure in COMPARED
                    if measure in sides[0][0]
                }
                found.append(Contrast(data, method, baseline, (method, baseline) == best, results, {}))
    adjusted = iter(holm([result.p_value for contrast in found for result in contrast.results.values()]))
    for contrast in found:
        contrast.adjusted.update(zip(contrast.results, adjusted))
    return found


def comparison_rows(records: list[dict]) -> dict[str, Table]:
    """One table of all contrasts; empty where nothing can be compared."""
    found = contrasts(records)
    if not found:
        return {}
    rows = [
        [
            contrast.data,
            method_title(contrast.method) + (' (best)' if contrast.strongest else ''),
            method_title(contrast.baseline),
            *(
                text
                for name, result in contrast.results.items()
                for text in (f'{result.difference:+.2f} ± {result.half_width:.2f}', f'{contrast.adjusted[name]:.3f}')
            ),
        ]
        for contrast in found
    ]
    return {
        'Paired differences, points': (
            ['', 'method', 'against', *(text for name in found[0].results for text in (name, 'p'))],
            rows,
        )
    }


def verdicts(records: list[dict]) -> list[str]:
    """What this project aimed at, for the strongest method with the term against the strongest without, and what was reached; empty
    where nothing can be compared."""
    best, groups = [contrast for contrast in contrasts(records) if contrast.strongest], by_method(records)
    if not best:
        return []
    gains = [contrast.results['test'].difference for contrast in best]
    certain = [contrast.results['test'].difference >= 1 and contrast.adjusted['test'] < 0.05 for contrast in best]
    spreads = [
        [statistics.stdev(values(groups[contrast.data][name], 'test')) for name in (contrast.method, contrast.baseline)]
        for contrast in best
    ]
    noise = [contrast.results['noise 32'].difference for contrast in best if 'noise 32' in contrast.results]
    listed = ', '.join
    cases = [
        (
            'a gain of 1.00 or more on two data sets, with p < 0.05',
            sum(certain) >= 2,
            listed(f'{gain:+.2f}' for gain in gains),
        ),
        ('nowhere a loss of more than 0.30', min(gains) >= -0.3, f'{min(gains):+.2f} at the lowest'),
        (
            'a smaller spread over seeds',
            all(ours < theirs for ours, theirs in spreads),
            listed(f'{ours:.2f} against {theirs:.2f}' for ours, theirs in spreads),
        ),
        *(
            [('2 points more under noise 32', min(noise) >= 2, listed(f'{gain:+.2f}' for gain in noise))]
            if noise
            else []
        ),
    ]
    return [f'{aim}: {"met" if met else "missed"} ({reached})' for aim, met, reached in cases]
