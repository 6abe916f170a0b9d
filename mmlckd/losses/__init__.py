"""Distillation losses: each is ``loss(student_feats, teacher_feats) -> scalar``.

A loss that needs less of the teacher than its maps is split in two, ``loss.compare(student_feats, loss.targets(teacher_feats))``: the
distiller makes the targets before the student runs, and the maps are free again.
"""

from .attention_transfer_loss import AttentionTransferLoss
from .fsp_loss import FSPLoss
from .lipschitz_kd_loss import LipschitzKDLoss
from .logits_kd_loss import LogitsKDLoss
from .overhaul_loss import OFDLoss

__all__ = ['AttentionTransferLoss', 'FSPLoss', 'LipschitzKDLoss', 'LogitsKDLoss', 'OFDLoss']
