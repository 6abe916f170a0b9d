"""What a study runs and with which weights."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmlckd.config import find_file

from .cell import LR, Cell, method_title

Method = tuple[str, ...]


class Study:
    """A config of configs/study: data sets, methods, seeds.

    Its fields:

    - ``data``: the name of each data set, and its recipe, a distillation config;
    - ``losses``: loss dicts that are added to those of the recipes, or replace them;
    - ``changes``: by name, fields that are merged into a recipe, such as an augmentation or a longer schedule;
    - ``methods``: lists of names of losses and changes; an empty one is the student alone;
    - ``grid``: for each loss name the weights to try on the selection seeds; under ``lr`` the learning rates;
    - ``seeds``: those of the report;
    - ``selection_seeds``: those that weights are chosen on, none of them in ``seeds``;
    - ``selection_data``: the data sets that they are chosen on; all, if it is missing;
    - ``each``: True to choose them for each data set by itself, not by the mean over all;
    - ``weights``: the file that a selection writes its weights to; without it the recipes' own hold;
    - ``compare``: pairs of methods to compare, beside those of :func:`mmlckd.study.tables.contrasts`;
    - ``aims``: see :class:`mmlckd.study.aims.Aim`.

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
        self.changes: dict[str, dict] = {key: dict(value) for key, value in config.get('changes', {}).items()}
        self.methods: list[Method] = list(dict.fromkeys(tuple(method) for method in config.methods))
        self.grid: dict[str, list] = dict(config.get('grid', {}))
        self.selection_data: list[str] = list(config.get('selection_data', self.data))
        self.each: bool = config.get('each', False)
        self.own_data = set(self.data)  # on other data, the recipe's own weights hold
        self.design: dict[str, list] = {key: list(config.get(key, [])) for key in ('compare', 'aims')}
        self.seeds: list[int] = list(dict.fromkeys(config.seeds))
        self.selection_seeds: list[int] = list(config.get('selection_seeds', []))
        shared = set(self.seeds) & set(self.selection_seeds)
        if shared:
            raise ValueError(
                f'seeds has {sorted(shared)}, which are selection_seeds too: '
                'weights must be chosen on seeds that are not reported'
            )
        self.weights_file: Path | None = Path(config.weights) if config.get('weights') else None

    def chosen(self, data: str) -> dict[str, dict[str, float]]:
        """For a data set, the weights of each method's losses; a method is its names joined by '+'.

        Empty before a selection, and for data that is not the study's own.

        Raises:
            ValueError: The file of the weights is of another kind of selection.
        """
        found = find_file(str(self.weights_file)) if self.weights_file else None
        if found is None or data not in self.own_data:
            return {}
        record = json.loads(found.read_text())
        kind = 'each' if self.each else 'methods'
        if kind not in record:
            raise ValueError(
                f'{found} has no {kind!r}, so it is of another selection than study {self.name!r} with '
                f'each={self.each}: choose anew with --select'
            )
        methods = record[kind].get(data, {}) if self.each else record[kind]
        return {name: row['weights'] for name, row in methods.items()}

    def cells(self) -> list[Cell]:
        """The cells of the report, seed by seed, so that an early look finds all methods."""
        chosen = {data: self.chosen(data) for data in self.data}
        return [
            self._cell(data, method, chosen[data].get('+'.join(method), {}), seed)
            for seed in self.seeds
            for data in self.data
            for method in self.methods
        ]

    def untuned(self) -> list[str]:
        """The methods that have no chosen weights, though others have; as data: method."""
        chosen = {data: self.chosen(data) for data in self.data}
        titles = [('+'.join(method), method_title(method)) for method in self.methods]
        return [
            f'{data}: {title}'
            for data, weights in chosen.items()
            for name, title in titles
            if weights and name not in weights
        ]

    def _cell(self, data: str, method: Method, weights: dict[str, float], seed: int, selecting: bool = False) -> Cell:
        losses = {name: self.losses[name] for name in method if name in self.losses}
        changes = {name: self.changes[name] for name in method if name in self.changes}
        return Cell(data, self.data[data], method, losses, weights, seed, selecting, changes)

    def selection(self, run) -> dict[str, dict]:
        """Choose each method's weights by the validation result, averaged over selection seeds and data sets.

        With ``each`` they are chosen for every data set by itself.

        Methods are taken from the shortest to the longest. A method begins with the weights of the method without its
        last name. First the weight of its last loss is chosen, then the learning rate, each from its grid.

        Args:
            run: Takes cells and returns their records.

        Returns:
            For each method, joined by '+', dict(weights, tried). ``tried`` has for each name that was chosen a list of
            [value, validation result]. With ``each``, that for every data set.

        Raises:
            ValueError: A loss has no grid.
        """
        if self.each:
            return {data: self._selection([data], run) for data in self.selection_data}
        return self._selection(self.selection_data, run)

    def _selection(self, data: Sequence[str], run) -> dict[str, dict]:
        methods = {method[:length] for method in self.methods for length in range(len(method) + 1)}
        chosen: dict[str, dict] = {
            '+'.join(method): dict(weights={}, tried={})
            for method in sorted(methods, key=lambda name: (len(name), name))
        }
        for length in range(1 + max(map(len, methods))):
            level = [method for method in sorted(methods) if len(method) == length]
            for method in level:
                chosen['+'.join(method)]['weights'] = dict(chosen['+'.join(method[:-1])]['weights'])
            last = {method: method[-1] for method in level if method and method[-1] not in self.changes}
            self._choose(last, chosen, data, run)
            if LR in self.grid:
                self._choose(dict.fromkeys(level, LR), chosen, data, run)
        return chosen

    def _choose(self, names: dict[Method, str], chosen: dict[str, dict], data: Sequence[str], run) -> None:
        """Choose for each method the value of one name, all in one go."""
        cells = {}
        for method, name in names.items():
            if not self.grid.get(name):
                raise ValueError(f'method {method_title(method)!r} cannot be tuned: grid needs weights of {name!r}')
            weights = chosen['+'.join(method)]['weights']
            if len(self.grid[name]) == 1:  # there is nothing to choose
                weights[name] = self.grid[name][0]
                continue
            for value in self.grid[name]:
                cells[method, value] = [
                    self._cell(title, method, {**weights, name: value}, seed, selecting=True)
                    for title in data
                    for seed in self.selection_seeds
                ]
        records = iter(run([cell for group in cells.values() for cell in group]))
        for (method, value), group in cells.items():
            score = statistics.fmean(next(records)['validation'] for _ in group)
            chosen['+'.join(method)]['tried'].setdefault(names[method], []).append([value, round(score, 3)])
        for method, name in {pair[0]: names[pair[0]] for pair in cells}.items():
            result = chosen['+'.join(method)]
            result['weights'][name] = max(result['tried'][name], key=lambda pair: pair[1])[0]


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
            titles = [title for title, recipe in known.items() if name in (title, recipe)]
            title = titles[0] if titles else Path(name).stem
            study.data[title] = known.get(title, name)
        study.selection_data = list(study.data)
    if methods:
        asked = [() if name == 'alone' else tuple(filter(None, name.split('+'))) for name in methods]
        study.methods = list(dict.fromkeys(asked))
    if seeds:
        shared = set(seeds) & set(study.selection_seeds)
        if shared and study.weights_file:
            raise ValueError(
                f'--seeds has {sorted(shared)}, which are selection_seeds too: weights were chosen on them, so report '
                'others'
            )
        study.seeds = list(dict.fromkeys(seeds))
    return study
