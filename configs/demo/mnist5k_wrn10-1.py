"""The demo's student, WRN-10-1, alone: 100 training images."""
_base_ = ['mmpretrain::_base_/default_runtime.py', '../_base_/datasets/mnist5k.py', '../_base_/schedules/demo_60e.py']
custom_imports = dict(imports=['mmlckd'], allow_failed_imports=False)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlckd.WideResNet', depth=10, widen_factor=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=10, in_channels=64, loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=20, max_keep_ckpts=2))
randomness = dict(seed=0)
