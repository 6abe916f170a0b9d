"""A transformer teaches a convolutional network: UPerNet Swin-T to DeepLabV3+ ResNet-18, on VOC12 + SBD.

The maps differ in channels and, at strides 4, 8, 16, 32 against 4, 8, 8, 8, in size: each side's norms are taken on its
own maps.
"""
_base_ = '../baselines/voc_deeplabv3plus_r18.py'
custom_imports = dict(imports=['mmlckd'], allow_failed_imports=False)
teacher_checkpoint = 'work_dirs/voc_upernet_swin-t/iter_40000.pth'
prerequisites = {teacher_checkpoint: 'python tools/train.py configs/teachers/voc_upernet_swin-t.py'}
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(config='configs/teachers/voc_upernet_swin-t.py', checkpoint=teacher_checkpoint),
    taps=dict(
        student='resnet_preact',
        teacher=[dict(module='backbone', index=0), dict(module='backbone', index=1), dict(module='backbone', index=2),
                 dict(module='backbone', index=3)]),
    losses=dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True, max_share=0.2)))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
