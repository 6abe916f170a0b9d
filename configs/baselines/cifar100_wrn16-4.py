"""WRN-16-4 on CIFAR-100, alone: the student of setting a."""
_base_ = ['mmpretrain::_base_/default_runtime.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_200e.py']
custom_imports = dict(imports=['mmlckd'], allow_failed_imports=False)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlckd.WideResNet', depth=16, widen_factor=4),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=100, in_channels=256, topk=(1, 5), loss=dict(type='CrossEntropyLoss'),
        # torch's own initialisation, which the authors' code leaves in place, with a bias of 0
        init_cfg=dict(
            type='Kaiming', layer='Linear', a=5**0.5, distribution='uniform', mode='fan_in',
            nonlinearity='leaky_relu')))
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=2))
