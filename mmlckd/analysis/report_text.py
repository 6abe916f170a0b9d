"""The Lipschitz report as a table and as a page, from the record of an analysis."""

from __future__ import annotations

import torch

# A record is what tools/analyze_lipschitz.py writes as report.json. 'networks' holds a result of
# :func:`~mmlckd.analysis.analyze` for each name. 'config', 'seed', 'images', 'center', 'noise' and 'epsilon' say what
# was measured.


def report_table(record: dict) -> list[list[str]]:
    """Rows of the table: the header, then a quantity and its value for every network in each."""
    results = list(record['networks'].values())
    rows = [
        ['', *record['networks']],
        ['parameters', *(f'{result["parameters"]:,}' for result in results)],
    ]
    for k in range(max(len(result.get('pairs', ())) for result in results)):
        rows.append([f'transmitting norm, pair {k}', *(_spread(result['pairs'][k]) for result in results)])
    rows += [
        ['local constant', *(_spread(result['local']) for result in results)],
        *_distance_rows(record['networks']),
        ['its peak', *(_peak(result['local'], record['images']) for result in results)],
        ['product bound', *(_number(result['bound']) for result in results)],
        ['largest operator norm', *(_number(_largest_norm(result)) for result in results)],
    ]
    if all('robustness' in result for result in results):
        rows += _robustness_rows(record, results)
    return rows


def report_gaps(record: dict) -> list[str]:
    """A sentence for each number that a network lacks."""
    sentences = []
    for name, result in record['networks'].items():
        if result['no_local']:
            sentences.append(f'{name}: no local constant, because {result["no_local"]}')
    for name, result in record['networks'].items():
        if result['unbounded']:
            sentences.append(f'{name}: no upper bound, because of {", ".join(result["unbounded"])}.')
    return sentences


def report_page(record: dict) -> str:
    """The whole report in Markdown."""
    header, *rows = report_table(record)
    lines = [f'# Lipschitz report of {record["config"]}', '']
    for row in (header, ['---', *['---:'] * (len(header) - 1)], *rows):
        lines.append(f'| {" | ".join(row)} |')
    lines += ['', _legend(record)]
    first = next(iter(record['networks'].values()))
    if 'taps' in first:
        kind = 'centred' if record['center'] else 'raw'
        lines += [
            '',
            f'Transmitting norms are of {kind} maps, before any connectors. Pair k goes from a tap to the next:',
        ]
        lines.append('')
        for name, result in record['networks'].items():
            lines.append(f'- {name}: `{"`, `".join(result["taps"])}`')
    missing = report_gaps(record)
    if missing:
        lines += ['', *missing]
    return '\n'.join(lines) + '\n'


def _legend(record: dict) -> str:
    first = next(iter(record['networks'].values()))
    size = ' x '.join(map(str, first['size']))
    return (
        f'Mean (5 % to 95 % quantile) over {len(record["images"])} test images, drawn by seed {record["seed"]}. Local '
        f'constants: sigma_max of the Jacobian of the {first["of"]}, in output units per pixel value (0 to 255); each '
        'is a lower bound of the global one. Their distance to the teacher is the mean over images of \\|log(local '
        "constant / teacher's)\\|. The product is an upper bound in the same units, for images of "
        f'{size} px. It is made of operator norms that approach from below, each to about 1e-4 of its value. Noise, '
        'FGSM and PGD are in pixel values.'
    )


def _robustness_rows(record: dict, results: list[dict]) -> list[list[str]]:
    rows = []
    for kind, title in (('noise', 'noise'), ('fgsm', 'FGSM'), ('pgd', 'PGD')):
        strengths = record['noise'] if kind == 'noise' else record['epsilon']
        for i, strength in enumerate(strengths):
            accuracies = [f'{result["robustness"][kind][i]:.2f}' for result in results]
            rows.append([f'accuracy %, {title} {strength:g}', *accuracies])
    return rows


def _distance_rows(networks: dict) -> list[list[str]]:
    """How far local constants are from the teacher's, image by image; no row where a network lacks them."""
    if 'teacher' not in networks or any(result['local'] is None for result in networks.values()):
        return []
    logs = [torch.tensor(result['local'], dtype=torch.float64).clamp_min(1e-30).log() for result in networks.values()]
    theirs = logs[list(networks).index('teacher')]
    distances = [(ours - theirs).abs().mean().item() for ours in logs]
    return [['its distance to the teacher', *(f'{distance:.2f}' for distance in distances)]]


def _spread(values: list[float] | None) -> str:
    if values is None:
        return 'none'
    low, high = torch.tensor(values).quantile(torch.tensor([0.05, 0.95])).tolist()
    return f'{sum(values) / len(values):.3g} ({low:.3g} to {high:.3g})'


def _peak(values: list[float] | None, images: list[int]) -> str:
    if values is None:
        return 'none'
    return f'{max(values):.3g}, image {images[values.index(max(values))]}'


def _number(value: float | None) -> str:
    return 'none' if value is None else f'{value:.3g}'


def _largest_norm(result: dict) -> float:
    return max(layer['operator_norm'] for layer in result['layers'].values())
