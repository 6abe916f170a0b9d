"""What a study is to show, said before it runs, and whether it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .cell import method_title
from .tables import Contrast


@dataclass(frozen=True)
class Aim:
    """A gain that a study aims at.

    Args:
        of, over: Two methods, lists of names. The study must compare them.
        measure: What is compared, such as 'test' or 'FGSM 8'.
        gain: The least mean difference, in the measure's units.
        p: The adjusted p-value must be below it; None: it does not matter.
        sets: On how many data sets; None: on all.
    """

    of: Sequence[str]
    over: Sequence[str]
    measure: str
    gain: float
    p: float | None = None
    sets: int | None = None

    def verdict(self, contrasts: Sequence[Contrast]) -> str | None:
        """A sentence: the aim, whether it is met, and what was reached. None where nothing compares the two."""
        pair = tuple(self.of), tuple(self.over)
        rows = [row for row in contrasts if (row.method, row.baseline) == pair and self.measure in row.results]
        if not rows:
            return None
        differences = [row.results[self.measure].difference for row in rows]
        certain = [self.p is None or row.adjusted[self.measure] < self.p for row in rows]
        reached = sum(difference >= self.gain and sure for difference, sure in zip(differences, certain))
        met = reached >= (len(rows) if self.sets is None else self.sets)
        where = 'on every data set' if self.sets is None else f'on {self.sets} data sets'
        surely = '' if self.p is None else f' with p < {self.p:g}'
        numbers = ', '.join(f'{difference:+.2f}' for difference in differences)
        return (
            f'{method_title(pair[0])} over {method_title(pair[1])}, {self.measure}: {self.gain:+.2f} or more '
            f'{where}{surely}: {"met" if met else "missed"} ({numbers})'
        )


def verdicts(contrasts: Sequence[Contrast], aims: Sequence[dict]) -> list[str]:
    """The sentence of each aim that can be judged; ``aims`` are the arguments of :class:`Aim`."""
    return [sentence for aim in aims if (sentence := Aim(**aim).verdict(contrasts)) is not None]
