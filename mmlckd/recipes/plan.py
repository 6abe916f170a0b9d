"""Which losses compare which maps: chosen by task and by what the maps are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from mmlckd.taps import Pair, auto_pairs, host_of, output_pairs

TASKS = dict(mmpretrain='classifier', mmdet='detector', mmseg='segmentor')

# What a term's gradient on the student's backbone is to begin with, in parts of that of the student's own losses. The
# demo's hand-written recipes have 13 (features) and 3 (logits) in classification, 0.3 in detection, 7 in segmentation.
SHARES = dict(
    mmpretrain=dict(features=10.0, logits=3.0),
    mmdet=dict(features=1.0, logits=1.0),
    mmseg=dict(features=10.0, logits=3.0),
)


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

    Source: this project. The study found KD + OFD to gain most in accuracy, guidance robustness at the cost of a second
    step, and the paper's Lipschitz term nothing beside OFD.
    """
    pairs = auto_pairs(student, teacher)
    host = host_of(student) or 'mmpretrain'
    shares = SHARES[host]
    terms, notes = [_features(pairs, shares['features'])], []
    try:
        student_taps, teacher_taps = zip(*_outputs(student, teacher))
        terms.insert(0, _logits(host, list(student_taps), list(teacher_taps), shares['logits']))
    except ValueError as error:
        reason = str(error).removeprefix("taps is 'logits' and ").partition(': ')[0]
        notes.append(f'no loss on logits: {reason}')
    if not guidance:
        return Plan(pairs, terms, notes=notes)
    if terms[0].name != 'kd':
        raise ValueError('guidance compares the logits of classifiers of the same classes: leave --guidance out here')
    taps = terms[0].fields['taps']
    terms[0] = replace(terms[0], fields={**terms[0].fields, 'views': 'both'})
    local = dict(type='mmlckd.LocalLipschitzKDLoss', taps=taps)
    why = "logits move between two views as the teacher's do"
    terms.append(Term('local', local, shares['logits'], why, 1.0, guarded=False))
    return Plan(pairs, terms, dict(type='mmlckd.MixedView'), notes)


def _outputs(student: nn.Module, teacher: nn.Module) -> list[tuple[str, str]]:
    """Paths of the logits of both networks."""
    if host_of(student) == 'mmdet':
        raise ValueError("heads of detectors are compared only where a recipe says so, by taps='logits'")
    return [(ours.module, theirs.module) for ours, theirs in output_pairs(student, teacher)]


def _features(pairs: list[Pair], share: float) -> Term:
    if all(theirs.before_relu and ours.stride == theirs.stride for ours, theirs in pairs):
        # The default weight is the demo's 1e-3 of the sum: its maps of 28, 14 and 7 px, at weights 1/4, 1/2 and 1, have
        # 343 positions for a weight of 7/4 in all, which is 196 each.
        fields = dict(type='mmlckd.OFDLoss', connectors=True, reduction='mean')
        return Term('ofd', fields, share, "the teacher's maps go from a batch norm into a ReLU", 0.2)
    fields = dict(type='mmlckd.PKDLoss', connectors=True)
    return Term(
        'pkd', fields, share, "maps of any kind: not all of the teacher's go from a batch norm into a ReLU", 1.0
    )


def _logits(host: str, student: list[str], teacher: list[str], share: float) -> Term:
    taps = student if student == teacher else dict(student=student, teacher=teacher)
    if host == 'mmseg':
        fields = dict(type='mmlckd.CWDLoss', tau=4.0, taps=taps)
        return Term('cwd', fields, share, 'both have the same classes, seen channel by channel', 1.0, guarded=False)
    fields = dict(type='mmlckd.LogitsKDLoss', tau=4.0, taps=taps)
    return Term('kd', fields, share, 'both have the same classes', 1.0, guarded=False)
