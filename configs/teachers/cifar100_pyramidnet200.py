"""PyramidNet-200 (alpha 240, bottleneck) on CIFAR-100: the teacher of settings e and f.

The authors' own teacher is named as trained with mixup, at 15.6 % error; its protocol was not found, so this is the
students', with mixup.
"""
_base_ = '../baselines/cifar100_pyramidnet110.py'
model = dict(
    backbone=dict(depth=200, alpha=240, bottleneck=True),
    head=dict(in_channels=1024),
    train_cfg=dict(augments=dict(type='Mixup', alpha=1.0)))
