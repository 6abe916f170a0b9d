"""What a study runs and with which weights."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmlckd.config import find_file

from .cell import Cell, method_title

Method = tuple[str, ...]


class Study:
    """A config of configs/study: data sets, methods, seeds.

    Its fields:

    - ``data``: the name of each data set, and its recipe, a distillation config;
    - ``losses``: loss dicts that are added to those of the recipes, or replace them;
    - ``methods``: lists of loss names; an empty one is the student alone;
    - ``grid``: for each loss name the weights to try on the selection seeds;
    - ``seeds``: those of the report;
    - ``selection_seeds``: those that weights are chosen on, none of them in ``seeds``;
    - ``weights``: the file that a selection writes its weights to; without it the recipes' own hold.

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
        self.seeds: list[int] = list(config.seeds)
        self.selection_seeds: list[int] = list(config.get('selection_seeds', []))
        shared = set(self.seeds) & set(self.selection_seeds)
        if shared:
            raise ValueError(
                f'seeds has {sorted(shared)}, which are selection_seeds too: '
                'weights must be chosen on seeds that are not reported'
            )
        self.weights_file: Path | None = Path(config.weights) if config.get('weights') else None

    def chosen(self) -> dict[str, dict[str, float]]:
        """The weights of each method's losses; a method is its names joined by '+'. Empty before a selection."""
        found = find_file(str(self.weights_file)) if self.weights_file else None
        if found is None:
            return {}
        return {name: row['weights'] for name, row in json.loads(found.read_text())['methods'].items()}

    def cells(self) -> list[Cell]:
        """The cells of the report, seed by seed, so that an early look finds all methods."""
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

        Methods are taken from the shortest to the longest. The weight of a method's last loss is chosen from its grid.
        The others keep the weights that were chosen for the method without the last loss.

        Args:
            run: Takes cells and returns their records.

        Returns:
            For each method, joined by '+', dict(weights, tried). ``tried`` is a list of [weight, validation result].

        Raises:
            ValueError: A loss has no grid, or the study lacks a method without its last loss.
        """
        chosen: dict[str, dict] = {'': dict(weights={}, tried=[])}
        for length in range(1, 1 + max(map(len, self.methods))):
            candidates: dict[tuple[Method, float], list[Cell]] = {}
            for method in self.methods:
                if len(method) == length:
                    candidates.update(self._candidates(method, chosen))
            records = iter(run([cell for cells in candidates.values() for cell in cells]))
            scores: dict[Method, list] = {}
            for (method, weight), cells in candidates.items():
                score = statistics.fmean(next(records)['validation'] for _ in cells)
                scores.setdefault(method, []).append([weight, round(score, 3)])
            for method, tried in scores.items():
                best, _ = max(tried, key=lambda pair: pair[1])
                weights = {**chosen['+'.join(method[:-1])]['weights'], method[-1]: best}
                chosen['+'.join(method)] = dict(weights=weights, tried=tried)
        return chosen

    def _candidates(self, method: Method, chosen: dict[str, dict]) -> dict[tuple[Method, float], list[Cell]]:
        """The cells to run for each weight in the grid of the method's last loss."""
        start, last = '+'.join(method[:-1]), method[-1]
        if start not in chosen or not self.grid.get(last):
            raise ValueError(
                f'method {method_title(method)!r} cannot be tuned: grid needs weights of {last!r}, and methods needs '
                f'{method_title(method[:-1])!r}'
            )
        candidates = {}
        for weight in self.grid[last]:
            weights = {**chosen[start]['weights'], last: weight}
            candidates[method, weight] = [
                self._cell(data, method, weights, seed, selecting=True)
                for data in self.data
                for seed in self.selection_seeds
            ]
        return candidates


def restricted(
    study: Study, data: Sequence[str] | None, methods: Sequence[str] | None, seeds: Sequence[int] | None
) -> Study:
    """The study with the data sets, methods and seeds that a command line names in place of its own.

    Args:
        study: Changed in place.
        data: Titles of the study's data sets, or paths of recipes.
        methods: Loss names joined by '+', or 'alone'.
        seeds: Of the report.

    Raises:
        ValueError: Weights were chosen on one of the seeds.
    """
    if data:
        known = study.data
        study.data = {}
        for name in data:
            title = name if name in known else Path(name).stem
            study.data[title] = known.get(name, name)
    if methods:
        study.methods = [() if name == 'alone' else tuple(filter(None, name.split('+'))) for name in methods]
    if seeds:
        shared = set(seeds) & set(study.selection_seeds)
        if shared and study.weights_file:
            raise ValueError(
                f'--seeds has {sorted(shared)}, which are selection_seeds too: weights were chosen on them, so report '
                'others'
            )
        study.seeds = list(seeds)
    return study
