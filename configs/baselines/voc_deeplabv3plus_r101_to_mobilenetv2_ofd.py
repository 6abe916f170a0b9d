"""DeepLabV3+, ResNet-101 to MobileNetV2, by OFD alone, to its protocol for VOC12; MobileNetV2's stages end without a
ReLU.
"""
_base_ = './voc_deeplabv3plus_mobilenetv2.py'
custom_imports = dict(imports=['mmlckd'], allow_failed_imports=False)
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='configs/teachers/voc_deeplabv3plus_r101.py',
        checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/deeplabv3plus/deeplabv3plus_r101-d8_512x512_40k_voc12aug/'
        'deeplabv3plus_r101-d8_512x512_40k_voc12aug_20200613_205333-faf03387.pth'),
    taps=dict(
        student=['backbone.layer2', 'backbone.layer3', 'backbone.layer5', 'backbone.layer7',
                 'decode_head.bottleneck.bn', 'decode_head.sep_bottleneck.1.pointwise_conv.bn'],
        teacher=['resnet_preact', 'decode_head.bottleneck.bn', 'decode_head.sep_bottleneck.1.pointwise_conv.bn']),
    losses=dict(ofd=dict(
        type='mmlckd.OFDLoss', loss_weight=1e-5, map_weights=[1 / 8, 1 / 4, 1 / 2, 1, 1, 1 / 16], connectors=True)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(distiller=dict(lr_mult=10.))))
custom_hooks = [dict(type='mmlckd.ConnectorWarmupHook', iters=661)]  # one epoch: 10,582 images in batches of 16
