"""Losses of other toolkits."""

from __future__ import annotations

from torch import Tensor, nn

from mmlckd.registry import MODELS

from .checks import check_foreign_weight
from .mapwise_loss import MapwiseLoss


@MODELS.register_module()
class EachMapLoss(MapwiseLoss):
    """Sum a loss from outside over the maps. It is called as ``loss(student_map, teacher_map)`` and returns a scalar.

        L = loss_weight * sum over maps of loss(student map, teacher map)

    It gets float32 maps, or float64, outside autocast, of those samples that are finite on both sides. Finding them
    waits for the device once for each map. If the loss itself overflows, its value stays as it is. Its parameters, if
    it has any, are trained and saved with the student.

    Args:
        loss: Its config, or the module itself. ``type`` is the name of a registered module ('mmdet.SmoothL1Loss'), the
            path of a class ('torch.nn.MSELoss'), or the class. Its own weight, if it has one, stays in force.
        loss_weight: Factor of the whole loss, not negative.
        equal_shapes: See that both maps of a pair have the same shape. False: the loss from outside deals with it.

    Raises:
        ValueError: The weight of the loss from outside is a string. While training, that loss returns something else
            than a scalar.

    Source: this project.
    """

    def __init__(self, loss: dict | nn.Module, loss_weight: float = 1.0, equal_shapes: bool = True):
        super().__init__(loss_weight)
        if not isinstance(loss, nn.Module):
            check_foreign_weight('loss.loss_weight', loss)
            loss = MODELS.build(loss)
        self.loss = loss
        self.alike = 'shape' if equal_shapes else 'batch'

    def pair_loss(self, student: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
        if not kept.any():
            return student.sum()  # all zeros: a loss of 0 with a gradient of 0, since no finite sample is in it
        if not kept.all():
            student, teacher = student[kept], teacher[kept]
        value = self.loss(student, teacher)
        if not isinstance(value, Tensor) or value.dim():
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"loss {type(self.loss).__name__} returns {found} where a scalar is needed: set its reduction to 'mean'"
            )
        return value
