"""Which losses compare which maps: chosen by task and by what the maps are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from mmlckd.taps import Pair, auto_pairs, host_of, logits_pair

TASKS = dict(mmpretrain='classifier', mmdet='detector', mmseg='segmentor')


@dataclass(frozen=True)
class Term:
    """One distillation loss of a recipe.

    Attributes:
        name: Its name in ``losses``.
        fields: The fields of its entry, without ``loss_weight`` and ``max_share``.
        share: What its gradient on the student's backbone is to begin with, in parts of the student's own.
        why: Why it is there, for the table.
        default_weight: Its weight where nothing is measured.
        guarded: Whether it gets a ``max_share``.
    """

    name: str
    fields: dict[str, Any]
    share: float
    why: str
    default_weight: float
    guarded: bool = True


@dataclass(frozen=True)
class Plan:
    """What a recipe compares.

    Attributes:
        pairs: Places of student and teacher, shallow to deep; the shared taps of the recipe.
        terms: The losses.
        view: How a second view is made; None without guidance.
        notes: What was left out, and why.
    """

    pairs: list[Pair]
    terms: list[Term]
    view: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


def choose(student: nn.Module, teacher: nn.Module, guidance: bool = False) -> Plan:
    """Choose taps and losses for two networks.

    - Features: OFD where every map of the teacher is what a ReLU takes, behind a batch norm, and sizes agree, since
      its margins are those of that norm; otherwise PKD, which needs neither.
    - Logits, where both sides have the same classes: KD for classifiers, CWD for segmentors.
    - ``guidance``, for classifiers: KD on two views of each batch, and :class:`.LocalLipschitzKDLoss`.

    Raises:
        ValueError: The rule for taps finds nothing, or guidance is asked for where there are no logits to guide.

    Source: this project. The study found KD + OFD to gain 4 to 5 points, guidance 1 to 2 more at the cost of a second
    step, and the paper's Lipschitz term nothing beside them.
    """
    pairs = auto_pairs(student, teacher)
    terms, notes = [_features(pairs)], []
    try:
        ours, theirs = logits_pair(student, teacher)
        terms.insert(0, _logits(host_of(student), [ours.module], [theirs.module]))
    except ValueError as error:
        notes.append(str(error).replace("taps is 'logits' and ", 'no loss on logits: ').partition(': leave')[0])
    if not guidance:
        return Plan(pairs, terms, notes=notes)
    if terms[0].name != 'kd':
        raise ValueError('guidance compares the logits of classifiers of the same classes: leave --guidance out here')
    taps = terms[0].fields['taps']
    terms[0] = replace(terms[0], fields={**terms[0].fields, 'views': 'both'})
    local = dict(type='mmlckd.LocalLipschitzKDLoss', taps=taps)
    terms.append(Term('local', local, 1.0, 'logits move between two views as the teacher does', 1.0, guarded=False))
    return Plan(pairs, terms, dict(type='mmlckd.MixedView'), notes)


def _features(pairs: list[Pair]) -> Term:
    fits = all(theirs.before_relu and ours.stride == theirs.stride for ours, theirs in pairs)
    if fits:
        fields = dict(type='mmlckd.OFDLoss', connectors=True)
        return Term('ofd', fields, 1.0, 'maps before a ReLU, with margins of its batch norm', 1e-3)
    return Term(
        'pkd',
        dict(type='mmlckd.PKDLoss', connectors=True),
        1.0,
        'maps of any scale: the teacher has no ReLU there',
        1.0,
    )


def _logits(host: str | None, student: list[str], teacher: list[str]) -> Term:
    taps = student if student == teacher else dict(student=student, teacher=teacher)
    if host == 'mmseg':
        fields = dict(type='mmlckd.CWDLoss', tau=4.0, taps=taps)
        return Term('cwd', fields, 1.0, 'where each class is seen', 1.0, guarded=False)
    fields = dict(type='mmlckd.LogitsKDLoss', tau=4.0, taps=taps)
    return Term('kd', fields, 1.0, 'both have the same classes', 1.0, guarded=False)
