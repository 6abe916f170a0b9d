"""What is compared: distillation losses, each ``loss(student_feats, teacher_feats) -> scalar``.

:class:`DistillationLoss` states the contract.
"""

from __future__ import annotations

from .attention_transfer_loss import AttentionTransferLoss
from .cwd_loss import CWDLoss
from .dist_loss import DISTLoss
from .distillation_loss import DistillationLoss
from .dkd_loss import DKDLoss
from .each_map_loss import EachMapLoss
from .fsp_loss import FSPLoss
from .lipschitz_kd_loss import LipschitzKDLoss
from .local_lipschitz_kd_loss import LocalLipschitzKDLoss
from .logits_kd_loss import LogitsKDLoss
from .mapwise_loss import MapwiseLoss
from .ofd_loss import OFDLoss
from .pkd_loss import PKDLoss

__all__ = [
    'AttentionTransferLoss',
    'CWDLoss',
    'DISTLoss',
    'DKDLoss',
    'DistillationLoss',
    'EachMapLoss',
    'FSPLoss',
    'LipschitzKDLoss',
    'LocalLipschitzKDLoss',
    'LogitsKDLoss',
    'MapwiseLoss',
    'OFDLoss',
    'PKDLoss',
]
