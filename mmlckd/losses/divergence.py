"""Kullback-Leibler divergences of what logits stand for, teacher to student."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax_divergence(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) along ``dim``, which is kept with size 1. Differentiable."""
    student, teacher = (F.log_softmax(logits, dim=dim) for logits in (student, teacher))
    return F.kl_div(student, teacher, reduction='none', log_target=True).sum(dim, keepdim=True)


def sigmoid_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL of two yes-or-no variables, entry by entry: yes has probability sigmoid(logit). Differentiable."""
    yes = F.logsigmoid(teacher) - F.logsigmoid(student)
    no = F.logsigmoid(-teacher) - F.logsigmoid(-student)
    return torch.sigmoid(teacher) * yes + torch.sigmoid(-teacher) * no
