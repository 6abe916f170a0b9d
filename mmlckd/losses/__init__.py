"""Distillation losses: each is ``loss(student_feats, teacher_feats) -> scalar``."""

from .lipschitz_kd_loss import LipschitzKDLoss
from .logits_kd_loss import LogitsKDLoss
from .overhaul_loss import OFDLoss

__all__ = ['LipschitzKDLoss', 'LogitsKDLoss', 'OFDLoss']
