"""The segmentation demo's student under its teacher: features and logits distilled, with local Lipschitz guidance.

All look at two views of each batch. Logits are those of every pixel.
"""
_base_ = './digits_deeplabv3plus_r18x16.py'
teacher_checkpoint = 'work_dirs/digits_deeplabv3plus_r18x32/epoch_2.pth'
prerequisites = {teacher_checkpoint: 'python tools/train.py configs/demo/digits_deeplabv3plus_r18x32.py'}
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(config='configs/demo/digits_deeplabv3plus_r18x32.py', checkpoint=teacher_checkpoint),
    taps=['resnet_preact', 'decode_head.bottleneck.bn', 'decode_head.sep_bottleneck.1.pointwise_conv.bn'],
    view=dict(type='mmlckd.MixedView'),
    losses=dict(
        ofd=dict(
            type='mmlckd.OFDLoss', loss_weight=1e-4, map_weights=[1 / 4, 1 / 2, 1, 1, 1 / 16], connectors=True,
            views='both'),
        kd=dict(
            type='mmlckd.LogitsKDLoss', loss_weight=5.0, tau=1.0, views='both', taps=['decode_head.conv_seg']),
        local=dict(type='mmlckd.LocalLipschitzKDLoss', taps=['decode_head.conv_seg'])))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
