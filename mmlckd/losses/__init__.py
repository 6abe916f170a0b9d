"""What is compared: distillation losses, each ``loss(student_feats, teacher_feats) -> scalar``.

:class:`DistillationLoss` states the contract.
"""

from __future__ import annotations

from .attention_transfer_loss import AttentionTransferLoss
from .distillation_loss import DistillationLoss, MapwiseLoss
from .fsp_loss import FSPLoss
from .lipschitz_kd_loss import LipschitzKDLoss
from .local_lipschitz_kd_loss import LocalLipschitzKDLoss
from .logits_kd_loss import LogitsKDLoss
from .ofd_loss import OFDLoss

__all__ = [
    'AttentionTransferLoss',
    'DistillationLoss',
    'FSPLoss',
    'LipschitzKDLoss',
    'LocalLipschitzKDLoss',
    'LogitsKDLoss',
    'MapwiseLoss',
    'OFDLoss',
]
