"""ResNet for small images, of three stages."""

from __future__ import annotations

from mmpretrain.models.backbones import ResNet_CIFAR
from mmpretrain.models.backbones.resnet import BasicBlock

from mmlckd.registry import MODELS


@MODELS.register_module()
class CifarResNet(ResNet_CIFAR):
    """ResNet-20, -32, -44, -56 or -110 for images of about 32 px: three stages of 16, 32 and 64 channels.

    mmpretrain's ``ResNet_CIFAR`` is the ImageNet ResNet with another stem. This subclass is the network of the CIFAR
    experiments. The preset 'resnet_preact' and all arguments of ``ResNet_CIFAR`` work with it. The first shortcut of a
    stage is a 1 x 1 convolution with batch norm.

    Args:
        depth: 6 n + 2.
        kwargs: ``ResNet_CIFAR``'s, such as ``out_indices``, ``frozen_stages``, ``norm_eval`` and ``init_cfg``.

    Source: He et al., Deep residual learning for image recognition (CVPR 2016), section 4.2; shortcuts of
    OFD's code.
    """

    arch_settings = {depth: (BasicBlock, ((depth - 2) // 6,) * 3) for depth in (20, 32, 44, 56, 110)}

    def __init__(self, depth: int, **kwargs):
        defaults = dict(
            stem_channels=16,
            base_channels=16,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(2,),
            zero_init_residual=False,
        )
        super().__init__(depth, **{**defaults, **kwargs})
