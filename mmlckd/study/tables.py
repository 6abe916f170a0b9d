"""Tables of a study's records."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

from .cell import method_title
from .statistics import Comparison, compare, holm

Method = tuple[str, ...]
Table = tuple[list[str], list[list[str]]]  # header, rows
MEASURES = {  # in tables, with their digits
    'test': ('test %', 2),
    'noise 16': ('noise 16', 2),
    'noise 32': ('noise 32', 2),
    'noise 64': ('noise 64', 2),
    'blur 1': ('blur 1', 2),
    'blur 2': ('blur 2', 2),
    'contrast 0.25': ('contrast 1/4', 2),
    'FGSM 8': ('FGSM 8', 2),
    'PGD 8': ('PGD 8', 2),
    'log loss': ('log loss', 3),
    'calibration error': ('calibration', 2),
    'gap': ('train - test', 2),
    'local constant': ('local constant', 3),
    'cost': ('cost', 2),
}
COMPARED = ('test', 'noise 32', 'noise 64', 'FGSM 8')


def by_method(records: list[dict]) -> dict[str, dict[Method, list[dict]]]:
    """The records of each data set and method, ordered by seed."""
    groups: dict[str, dict[Method, list[dict]]] = {}
    for record in sorted(records, key=lambda record: record['seed']):
        groups.setdefault(record['data'], {}).setdefault(tuple(record['method']), []).append(record)
    return groups


def values(records: list[dict], measure: str) -> list[float]:
    """A measure of each record; 'gap' is the training result minus the test result.

    'cost' is in trainings of the student alone; see :func:`with_cost`.
    """
    if measure == 'gap':
        return [record['train'] - record['test'] for record in records]
    return [record[measure] for record in records]


def strongest(groups: dict[Method, list[dict]], guided: bool) -> Method | None:
    """The method with the best mean validation result, of those with (guided) or without a Lipschitz term, if any."""
    names = [method for method in groups if is_guided(method) == guided]
    if not names:
        return None
    return max(names, key=lambda method: statistics.fmean(values(groups[method], 'validation')))


def is_guided(method: Method) -> bool:
    """Whether a method has a Lipschitz term."""
    return any(name.startswith('lipschitz') for name in method)


def mean_and_deviation(numbers: list[float], digits: int = 2) -> str:
    deviation = f' ± {statistics.stdev(numbers):.{digits}f}' if len(numbers) > 1 else ''
    return f'{statistics.fmean(numbers):.{digits}f}{deviation}'


def with_cost(records: list[dict]) -> list[dict]:
    """The records with their cost: the time of all steps, over the median one of the student alone on the same data.

    As they are where a data set has no student alone, or a record has no time.
    """
    alone: dict[str, list[float]] = {}
    for record in records:
        if not record['method'] and 'step_ms' in record:
            alone.setdefault(record['data'], []).append(record['steps'] * record['step_ms'])
    if set(alone) != {record['data'] for record in records}:
        return records
    unit = {data: statistics.median(times) for data, times in alone.items()}
    return [dict(record, cost=record['steps'] * record['step_ms'] / unit[record['data']]) for record in records]


def result_rows(records: list[dict]) -> dict[str, Table]:
    """A table for each data set: every method's results, as mean and standard deviation over seeds."""
    records = with_cost(records)
    known = set(records[0]) | ({'gap'} if 'train' in records[0] else set())
    measures = [name for name in MEASURES if name in known]
    tables = {}
    for data, groups in by_method(records).items():
        rows = []
        for method, group in groups.items():
            cells = [mean_and_deviation(values(group, name), MEASURES[name][1]) for name in measures]
            rows.append([method_title(method), *cells])
        tables[data] = (['', *(MEASURES[name][0] for name in measures)], rows)
    return tables


class Contrast(NamedTuple):
    """A method against another on a data set: how each measure compares, and its p-value adjusted for all contrasts."""

    data: str
    method: Method
    baseline: Method
    strongest: bool
    results: dict[str, Comparison]
    adjusted: dict[str, float]


def contrasts(records: list[dict], compare: Sequence[tuple[Sequence[str], Sequence[str]]] = ()) -> list[Contrast]:
    """What the Lipschitz term adds to each method, and the strongest method with it against the strongest without.

    Args:
        records: Of all methods, data sets and seeds.
        compare: More pairs of a method and its baseline.
    """
    more = [(tuple(method), tuple(baseline)) for method, baseline in compare]
    found = []
    for data, groups in by_method(records).items():
        best = strongest(groups, guided=True), strongest(groups, guided=False)
        pairs = [*_pairs(groups, best), *(pair for pair in more if set(pair) <= set(groups))]
        for pair in dict.fromkeys(pairs):
            results = _compared(groups, *pair)
            if results:
                found.append(Contrast(data, *pair, pair == best, results, {}))
    adjusted = iter(holm([result.p_value for contrast in found for result in contrast.results.values()]))
    for contrast in found:
        contrast.adjusted.update(zip(contrast.results, adjusted))
    return found


def _pairs(groups: dict[Method, list[dict]], best: tuple[Method | None, Method | None]) -> list[tuple[Method, Method]]:
    """What to compare: each method that ends in the Lipschitz term with the one without it, and the two best ones."""
    pairs = [(method, method[:-1]) for method in groups if is_guided(method[-1:]) and method[:-1] in groups]
    guided, plain = best
    if guided is not None and plain is not None and (guided, plain) not in pairs:
        pairs.append((guided, plain))
    return pairs


def _compared(groups: dict[Method, list[dict]], method: Method, baseline: Method) -> dict[str, Comparison]:
    """The comparison of each measure, over the seeds that both have; empty with fewer than two such seeds."""
    seeds = {record['seed'] for record in groups[method]} & {record['seed'] for record in groups[baseline]}
    if len(seeds) < 2:
        return {}
    ours, theirs = ([record for record in groups[name] if record['seed'] in seeds] for name in (method, baseline))
    measures = [name for name in COMPARED if name in ours[0]]
    return {name: compare(values(ours, name), values(theirs, name)) for name in measures}


def comparison_rows(found: list[Contrast]) -> dict[str, Table]:
    """One table of all contrasts; empty where nothing can be compared."""
    if not found:
        return {}
    header = ['', 'method', 'against']
    for name in found[0].results:
        header += [name, 'p']
    rows = []
    for contrast in found:
        best = ' (best)' if contrast.strongest else ''
        row = [contrast.data, method_title(contrast.method) + best, method_title(contrast.baseline)]
        for name, result in contrast.results.items():
            row += [with_interval(result), p_value(contrast.adjusted[name])]
        rows.append(row)
    return {'Paired differences, points': (header, rows)}


def with_interval(result: Comparison) -> str:
    """A difference with its 95 % interval, if it has one."""
    return f'{result.difference:+.2f}' + ('' if isnan(result.half_width) else f' ± {result.half_width:.2f}')


def p_value(value: float) -> str:
    if isnan(value):
        return '-'
    return '< 0.001' if value < 0.001 else f'{value:.3f}'
