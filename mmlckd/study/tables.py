"""A study's records as rows of tables."""

import statistics
from typing import Dict, List, Tuple

from .cell import method_title
from .statistics import compare, holm

Table = Tuple[List[str], List[List[str]]]
MEASURES = {'test': 'test %', 'noise 32': 'noise 32', 'noise 64': 'noise 64', 'FGSM 8': 'FGSM 8',
            'gap': 'train - test', 'local constant': 'local constant'}


def by_method(records: List[dict]) -> Dict[str, Dict[Tuple[str, ...], List[dict]]]:
    """Data set to method to its records, ordered by seed."""
    groups: Dict[str, Dict[Tuple[str, ...], List[dict]]] = {}
    for record in sorted(records, key=lambda record: record['seed']):
        groups.setdefault(record['data'], {}).setdefault(tuple(record['method']), []).append(record)
    return groups


def values(records: List[dict], measure: str) -> List[float]:
    if measure == 'gap':
        return [record['train'] - record['test'] for record in records]
    return [record[measure] for record in records]


def strongest(groups: Dict[Tuple[str, ...], List[dict]], guided: bool) -> Tuple[str, ...]:
    """The method with the best mean test result of those with, or without, a Lipschitz term; by validation it is chosen."""
    names = [method for method in groups if is_guided(method) == guided]
    return max(names, key=lambda method: statistics.fmean(values(groups[method], 'validation')), default=None)


def is_guided(method: Tuple[str, ...]) -> bool:
    return any(name.startswith('lipschitz') for name in method)


def mean_and_deviation(numbers: List[float], digits: int = 2) -> str:
    deviation = f' ± {statistics.stdev(numbers):.{digits}f}' if len(numbers) > 1 else ''
    return f'{statistics.fmean(numbers):.{digits}f}{deviation}'


def result_rows(records: List[dict]) -> Dict[str, Table]:
    """For each data set: every method, its results as mean and standard deviation over seeds."""
    tables = {}
    for data, groups in by_method(records).items():
        measures = [name for name in MEASURES if name == 'gap' and 'train' in records[0] or name in records[0]]
        rows = [[method_title(method), *(mean_and_deviation(values(group, name), 3 if 'local' in name else 2) for name in measures)]
                for method, group in groups.items()]
        tables[data] = (['', *(MEASURES[name] for name in measures)], rows)
    return tables


def comparisons(records: List[dict], measure: str = 'test') -> List[dict]:
    """What the Lipschitz term adds to each method, and the strongest with it against the strongest without, all Holm-adjusted together."""
    found = []
    for data, groups in by_method(records).items():
        pairs = [(method, method[:-1]) for method in groups if is_guided(method) and method[:-1] in groups]
        best = strongest(groups, True), strongest(groups, False)
        if None not in best and best not in pairs:
            pairs.append(best)
        for method, baseline in pairs:
            seeds = {record['seed'] for record in groups[method]} & {record['seed'] for record in groups[baseline]}
            if len(seeds) > 1:
                sides = ([record for record in groups[name] if record['seed'] in seeds] for name in (method, baseline))
                found.append(dict(data=data, method=method, baseline=baseline, strongest=(method, baseline) == best,
                                  result=compare(*(values(side, measure) for side in sides))))
    for row, p_value in zip(found, holm([row['result'].p_value for row in found])):
        row['holm'] = p_value
    return found


def comparison_rows(records: List[dict]) -> Dict[str, Table]:
    rows = [[row['data'], method_title(row['method']) + (' *' if row['strongest'] else ''), method_title(row['baseline']),
             f"{row['result'].difference:+.2f} ± {row['result'].half_width:.2f}", f"{row['result'].p_value:.3f}", f"{row['holm']:.3f}"]
            for row in comparisons(records)]
    header = ['', 'method', 'against', 'difference, 95 %', 'p', 'p, Holm']
    return {'paired differences in test results': (header, rows)} if rows else {}
