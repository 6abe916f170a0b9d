"""Semi-supervised detectors: which of their networks learns, and which branch of a batch is distilled."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

SUPERVISED = 'sup'  # the branch with labels, which mmdet's SemiBaseDetector runs first


def learner_of(student: nn.Module) -> nn.Module:
    """The network that taps are looked for in: ``student.student`` of a semi-supervised detector, else the student."""
    return student.student if _is_semi_supervised(student) else student


def supervised_branch(student: nn.Module, inputs: Any, data_samples: Any) -> tuple[Tensor, list | None]:
    """The images that are distilled, and their samples: of a semi-supervised detector's batch those with labels.

    Raises:
        ValueError: The inputs are not one tensor of images, nor branches with such a tensor.
    """
    if _is_semi_supervised(student) and isinstance(inputs, dict) and isinstance(inputs.get(SUPERVISED), Tensor):
        return inputs[SUPERVISED], (data_samples or {}).get(SUPERVISED)
    if isinstance(inputs, Tensor):
        return inputs, data_samples
    parts = f' of {", ".join(map(repr, inputs))}' if isinstance(inputs, dict) else ''
    raise ValueError(
        f"the batch's inputs are a {type(inputs).__name__}{parts}, and distillation needs one tensor (B, C, H, W): let "
        'data_preprocessor stack the images; batches of several views (self-supervised) cannot be distilled, and of '
        f"several branches only those of mmdet's semi-supervised detectors, with one called {SUPERVISED!r}"
    )


def _is_semi_supervised(student: nn.Module) -> bool:
    """Whether this is one of mmdet's: a student and its own teacher, which follows it."""
    networks = (getattr(student, name, None) for name in ('student', 'teacher'))
    return hasattr(student, 'semi_train_cfg') and all(isinstance(network, nn.Module) for network in networks)
