"""Distillation losses: each is ``loss(student_feats, teacher_feats) -> scalar``."""

from .attention_transfer_loss import AttentionTransferLoss
from .fsp_loss import FSPLoss
from .lipschitz_kd_loss import LipschitzKDLoss
from .logits_kd_loss import LogitsKDLoss
from .overhaul_loss import OFDLoss

__all__ = ['AttentionTransferLoss', 'FSPLoss', 'LipschitzKDLoss', 'LogitsKDLoss', 'OFDLoss']
