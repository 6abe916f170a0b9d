"""A recipe: what was chosen for a pair, as a config and as the text of a config file."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmlckd.checkpoints import AtomicBackend
from mmlckd.config import DISTILLER, find_file
from mmlckd.taps import Tap

from .calibration import Measured
from .plan import Plan, Term
from .text import fields_text, list_text, value_text

NOT_MEASURED = 'default weights: nothing was measured'


@dataclass(frozen=True)
class Recipe:
    """What was chosen for a pair.

    Attributes:
        student: Path or package name of the student's config.
        config: That config, read.
        teacher: Path or package name of the teacher's config.
        checkpoint: The teacher's checkpoint.
        plan: Taps and losses.
        measured: Their weights; None: the default ones.
    """

    student: str
    config: Config
    teacher: str
    checkpoint: str
    plan: Plan
    measured: Measured | None = None

    def as_config(self) -> Config:
        """The recipe as a config that trains, the same as its text gives."""
        config = copy.deepcopy(self.config)
        config.custom_imports = dict(imports=self._imports(), allow_failed_imports=False)
        config.model = ConfigDict(
            type=DISTILLER,
            student=copy.deepcopy(self.config.model),
            **self._teacher(),
            **self._taps(),
            **self._losses(),
        )
        return config

    def as_text(self, path: str | Path) -> str:
        """The recipe as the text of a config file that is to lie at this path."""
        lines = [f'"""{Path(self.teacher).stem} teaches {Path(self.student).stem}: written by tools/distill.py."""']
        lines.append(f'_base_ = {self._base(path)!r}')
        if set(self._imports()) != set((self.config.get('custom_imports') or {}).get('imports', ())):
            lines.append(f'custom_imports = dict(imports={self._imports()!r}, allow_failed_imports=False)')
        lines += ['model = dict(', '    _delete_=True,', f'    type={DISTILLER!r},', '    student={{_base_.model}},']
        lines += [f'    teacher=dict(config={self.teacher!r},', f'                 checkpoint={self.checkpoint!r}),']
        lines += self._tap_lines()
        lines += [f'    {fields_text(dict(view=self.plan.view))},'] if self.plan.view else []
        lines.append(f'    losses=dict(  # {self.measured.on if self.measured else NOT_MEASURED}')
        for term in self.plan.terms:
            lines += [f'        # {comment}' for comment in self.comments(term)]
            lines.append(f'        {term.name}={value_text(self._entry(term))},')
        return '\n'.join([*lines, '    ),', ')', ''])

    def comments(self, term: Term) -> list[str]:
        """What a recipe says of a loss."""
        if self.measured is None:
            return [term.why]
        gradient, part = self.measured.gradients[term.name], self.measured.shares[term.name]
        return [term.why, f"at the start {part:.0%} of the total, and {gradient:.2g} times the student's own gradient"]

    def weight(self, term: Term) -> float:
        return term.default_weight if self.measured is None else self.measured.weights[term.name]

    def max_share(self, term: Term) -> float | None:
        """The guard of a loss: halfway from its part of the total at the start to all of it, at least a half."""
        if not term.guarded:
            return None
        part = 0.0 if self.measured is None else self.measured.shares[term.name]
        return min(round((1 + part) / 2, 2), 0.99)

    def _imports(self) -> list[str]:
        there = (self.config.get('custom_imports') or {}).get('imports', [])
        there = [there] if isinstance(there, str) else list(there)
        return there if 'mmlckd' in there else [*there, 'mmlckd']

    def _base(self, path: str | Path) -> str:
        found = find_file(self.student)
        if found is None:  # the name of another package's config
            return self.student
        return Path(os.path.relpath(found.resolve(), Path(path).resolve().parent)).as_posix()

    def _teacher(self) -> dict[str, Any]:
        return dict(teacher=dict(config=self.teacher, checkpoint=self.checkpoint))

    def _taps(self) -> dict[str, Any]:
        student, teacher = ([tap_spec(pair[side].tap) for pair in self.plan.pairs] for side in (0, 1))
        return dict(taps=student if student == teacher else dict(student=student, teacher=teacher))

    def _tap_lines(self) -> list[str]:
        taps = self._taps()['taps']
        strides = ', '.join(str(pair[0].stride) for pair in self.plan.pairs)
        if isinstance(taps, list):
            return [f'    taps=[  # at strides {strides}', *list_text(taps, ' ' * 8), '    ],']
        lines = [f'    taps=dict(  # at strides {strides}']
        for side, specs in taps.items():
            lines += [f'        {side}=[', *list_text(specs, ' ' * 12), '        ],']
        return [*lines, '    ),']

    def _losses(self) -> dict[str, Any]:
        view = {} if self.plan.view is None else dict(view=dict(self.plan.view))
        return dict(view, losses={term.name: self._entry(term) for term in self.plan.terms})

    def _entry(self, term: Term) -> dict[str, Any]:
        guard = self.max_share(term)
        fields = dict(term.fields, loss_weight=self.weight(term))
        return fields if guard is None else dict(fields, max_share=guard)


def refuse_as_base(student: str) -> None:
    """See that a recipe can have the student's config as its base.

    Raises:
        ValueError: It is a new-style config, which MMEngine does not take as the base of another style.
    """
    found = find_file(student)
    if found is not None and Config._is_lazy_import(str(found)):
        raise ValueError(
            f'config {student!r} is a new-style one (with read_base()), and a recipe cannot have it as its base: write '
            'the recipe by hand, or give a config with _base_ = [...]'
        )


def tap_spec(tap: Tap) -> str | dict[str, Any]:
    """A tap as it is written in a config: its path, or a dict of what is not the default."""
    fields = {
        name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in vars(tap).items()
        if name == 'module' or value != tap.__dataclass_fields__[name].default
    }
    return tap.module if len(fields) == 1 else fields


def write(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe's text whole or not at all; folders are made."""
    AtomicBackend().put_text(recipe.as_text(path), path)
