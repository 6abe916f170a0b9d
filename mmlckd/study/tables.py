"""Tables of a study's records."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from .cell import method_title
from .statistics import Comparison, compare, holm

Method = tuple[str, ...]
Table = tuple[list[str], list[list[str]]]  # header, rows
MEASURES = {
    'test': 'test %',
    'noise 32': 'noise 32',
    'noise 64': 'noise 64',
    'FGSM 8': 'FGSM 8',
    'gap': 'train - test',
    'local constant': 'local constant',
}
COMPARED = ('test', 'noise 32', 'noise 64', 'FGSM 8')


def by_method(records: list[dict]) -> dict[str, dict[Method, list[dict]]]:
    """The records of each data set and method, ordered by seed."""
    groups: dict[str, dict[Method, list[dict]]] = {}
    for record in sorted(records, key=lambda record: record['seed']):
        groups.setdefault(record['data'], {}).setdefault(tuple(record['method']), []).append(record)
    return groups


def values(records: list[dict], measure: str) -> list[float]:
    """A measure of each record; 'gap' is the training result minus the test result."""
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


def result_rows(records: list[dict]) -> dict[str, Table]:
    """A table for each data set: every method's results, as mean and standard deviation over seeds."""
    known = set(records[0]) | ({'gap'} if 'train' in records[0] else set())
    measures = [name for name in MEASURES if name in known]
    tables = {}
    for data, groups in by_method(records).items():
        rows = []
        for method, group in groups.items():
            digits = {name: 3 if 'local' in name else 2 for name in measures}
            cells = [mean_and_deviation(values(group, name), digits[name]) for name in measures]
            rows.append([method_title(method), *cells])
        tables[data] = (['', *(MEASURES[name] for name in measures)], rows)
    return tables


class Contrast(NamedTuple):
    """A method against another on a data set: how each measure compares, and its p-value adjusted for all contrasts."""

    data: str
    method: Method
    baseline: Method
    strongest: bool
    results: dict[str, Comparison]
    adjusted: dict[str, float]


def contrasts(records: list[dict]) -> list[Contrast]:
    """What the Lipschitz term adds to each method, and the strongest method with it against the strongest without."""
    found = []
    for data, groups in by_method(records).items():
        best = strongest(groups, guided=True), strongest(groups, guided=False)
        for pair in _pairs(groups, best):
            results = _compared(groups, *pair)
            if results:
                found.append(Contrast(data, *pair, pair == best, results, {}))
    adjusted = iter(holm([result.p_value for contrast in found for result in contrast.results.values()]))
    for contrast in found:
        contrast.adjusted.update(zip(contrast.results, adjusted))
    return found


def _pairs(groups: dict[Method, list[dict]], best: tuple[Method | None, Method | None]) -> list[tuple[Method, Method]]:
    """What to compare: each method that ends in the Lipschitz term with the one without it, and the two best ones."""
    pairs = [(method, method[:-1]) for method in groups if is_guided(method) and method[:-1] in groups]
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


def comparison_rows(records: list[dict]) -> dict[str, Table]:
    """One table of all contrasts; empty where nothing can be compared."""
    found = contrasts(records)
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
            row += [f'{result.difference:+.2f} ± {result.half_width:.2f}', f'{contrast.adjusted[name]:.3f}']
        rows.append(row)
    return {'Paired differences, points': (header, rows)}


def verdicts(records: list[dict]) -> list[str]:
    """Each aim of this project, and what the strongest method with the term reached against the strongest without it.

    Empty where nothing can be compared.
    """
    best = [contrast for contrast in contrasts(records) if contrast.strongest]
    if not best:
        return []
    groups = by_method(records)
    gains = [contrast.results['test'].difference for contrast in best]
    certain = [contrast.results['test'].difference >= 1 and contrast.adjusted['test'] < 0.05 for contrast in best]
    spreads = []
    for contrast in best:
        results = (values(groups[contrast.data][name], 'test') for name in (contrast.method, contrast.baseline))
        spreads.append([statistics.stdev(numbers) for numbers in results])
    noise = [contrast.results['noise 32'].difference for contrast in best if 'noise 32' in contrast.results]
    reached_gains = ', '.join(f'{gain:+.2f}' for gain in gains)
    reached_spreads = ', '.join(f'{ours:.2f} against {theirs:.2f}' for ours, theirs in spreads)
    aims = [
        _verdict('a gain of 1.00 or more on two data sets, with p < 0.05', sum(certain) >= 2, reached_gains),
        _verdict('nowhere a loss of more than 0.30', min(gains) >= -0.3, f'{min(gains):+.2f} at the lowest'),
        _verdict('a smaller spread over seeds', all(ours < theirs for ours, theirs in spreads), reached_spreads),
    ]
    if noise:
        reached_noise = ', '.join(f'{gain:+.2f}' for gain in noise)
        aims.append(_verdict('2 points more under noise 32', min(noise) >= 2, reached_noise))
    return aims


def _verdict(aim: str, met: bool, reached: str) -> str:
    return f'{aim}: {"met" if met else "missed"} ({reached})'
