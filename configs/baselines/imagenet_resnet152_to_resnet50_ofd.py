"""ResNet-152 to ResNet-50 on ImageNet, by OFD alone."""
_base_ = './imagenet_resnet50.py'
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='mmpretrain::resnet/resnet152_8xb32_in1k.py',
        checkpoint='https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet152_8xb32_in1k_20210901-4d7582fa.pth',
        norm_stats='batch'),
    taps='resnet_preact',
    losses=dict(ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-4, connectors=True)))
