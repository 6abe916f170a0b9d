"""What a field of a config may hold: checked in one place, before anything looks inside it.

- ``forms``: the vocabulary, and the sentence that a wrong value gets;
- ``schemas``: the fields of a run and of a distillation, written down as forms;
- ``arguments``: the fields of every registered class, read off its annotations.

The tools check a config where they read it; every class of this package's registries checks its arguments where it is
built, so the tools of the host libraries get the same sentences.
"""

from __future__ import annotations

from .arguments import checked
from .forms import check_number, in_words
from .schemas import check_dataset, check_distiller, check_run

__all__ = ['check_dataset', 'check_distiller', 'check_number', 'check_run', 'checked', 'in_words']
