"""What a study runs and with which weights."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from .cell import Cell, method_title

Method = tuple[str, ...]


class Study:
    """A config of configs/study: data sets, methods, seeds.

    Its fields:

    - ``data``: what a data set is called, and its recipe, a distillation config;
    - ``losses``: loss dicts beside those of the recipes, or in their place;
    - ``methods``: lists of loss names; an empty one is the student alone;
    - ``grid``: for each loss name the weights that are tried on the selection seeds;
    - ``seeds`` of the report and ``selection_seeds``, which must be others;
    - ``weights``: file of the chosen weights, which a selection writes; without it the recipes' own hold.

    Raises:
        ValueError: A field is missing, or selection and report share a seed.
    """

    def __init__(self, config: Config, name: str):
        lacking = [field for field in ('data', 'methods', 'seeds') if field not in config]
        if lacking:
            raise ValueError(f'study {name!r} has no {", ".join(lacking)}: see configs/study/readme.py')
        self.name = name
        self.data: dict[str, str] = dict(config.data)
        self.losses: dict[str, dict] = {key: dict(value) for key, value in config.get('losses', {}).items()}
        self.methods: list[Method] = [tuple(method) for method in config.methods]
        self.grid: dict[str, list] = dict(config.get('grid', {}))
        self.seeds, self.selection_seeds = list(config.seeds), list(config.get('selection_seeds', []))
        if set(self.seeds) & set(self.selection_seeds):
            raise ValueError(
                f'seeds has {sorted(set(self.seeds) & set(self.selection_seeds))}, which are selection_seeds too: '
                'weights must be chosen on seeds that are not reported'
            )
        self.weights_file: Path | None = Path(config.weights) if config.get('weights') else None

    def chosen(self) -> dict[str, dict[str, float]]:
        """Method, as names joined by '+', to the weights of its losses; empty before a selection."""
        if self.weights_file is None or not self.weights_file.is_file():
            return {}
        return {name: row['weights'] for name, row in json.loads(self.weights_file.read_text())['methods'].items()}

    def cells(self) -> list[Cell]:
        """Those of the report, seed by seed, so that an early look has all methods."""
        chosen = self.chosen()
        return [
            self._cell(data, method, chosen.get('+'.join(method), {}), seed)
            for seed in self.seeds
            for data in self.data
            for method in self.methods
        ]

    def _cell(self, data: str, method: Method, weights: dict[str, float], seed: int, selecting: bool = False) -> Cell:
        losses = {name: self.losses[name] for name in method if name in self.losses}
        return Cell(data, self.data[data], method, losses, weights, seed, selecting)

    def selection(self, run) -> dict[str, dict]:
        """Choose each method's weights by the validation result, averaged over data sets and selection seeds.

        Methods are taken from the shortest to the longest. Of each, the last loss's weight is chosen from its grid; the others keep the
        weights that were chosen for the method without the last one.

        Args:
            run: Takes cells and returns their records.

        Returns:
            Method, joined by '+', to dict(weights, tried), where tried is a list of [weight, validation result].

        Raises:
            ValueError: A loss has no grid, or a method's beginning is no method of the study.
        """
        chosen: dict[str, dict] = {'': dict(weights={}, tried=[])}
        for length in range(1, 1 + max(map(len, self.methods))):
            candidates: dict[tuple[Method, float], list[Cell]] = {}
            for method in (method for method in self.methods if len(method) == length):
                start, last = '+'.join(method[:-1]), method[-1]
                if start not in chosen or not self.grid.get(last):
                    raise ValueError(
                        f'method {method_title(method)!r} cannot be tuned: grid needs weights of {last!r}, and methods needs '
                        f'{method_title(method[:-1])!r}'
                    )
                for weight in self.grid[last]:
                    weights = {**chosen[start]['weights'], last: weight}
                    candidates[method, weight] = [
                        self._cell(data, method, weights, seed, selecting=True)
                        for data in self.data
                        for seed in self.selection_seeds
                    ]
            records = iter(run([cell for cells in candidates.values() for cell in cells]))
            scores = {
                key: statistics.fmean(next(records)['validation'] for _ in cells) for key, cells in candidates.items()
            }
            for method in dict.fromkeys(method for method, _ in scores):
                tried = [[weight, round(score, 3)] for (other, weight), score in scores.items() if other == method]
                best = max(tried, key=lambda pair: pair[1])[0]
                chosen['+'.join(method)] = dict(
                    weights={**chosen['+'.join(method[:-1])]['weights'], method[-1]: best}, tried=tried
                )
        return chosen


def restricted(
    study: Study, data: Sequence[str] | None, methods: Sequence[str] | None, seeds: Sequence[int] | None
) -> Study:
    """The study with what a command line names in place of its own: data sets by title or recipes by path, methods, seeds.

    Raises:
        ValueError: A seed is one of those that the weights were chosen on.
    """
    if data:
        study.data = {
            title: path
            for name in data
            for title, path in ([(name, study.data[name])] if name in study.data else [(Path(name).stem, name)])
        }
    if methods:
        study.methods = [tuple(filter(None, name.split('+'))) if name != 'alone' else () for name in methods]
    if seeds:
        shared = set(seeds) & set(study.selection_seeds)
        if shared and study.weights_file:
            raise ValueError(
                f'--seeds has {sorted(shared)}, which are selection_seeds too: weights were chosen on them, report others'
            )
        study.seeds = list(seeds)
    return study
