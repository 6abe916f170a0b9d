"""WRN-28-2 on CIFAR-100, alone: the student of setting b."""
_base_ = './cifar100_wrn16-4.py'
model = dict(backbone=dict(depth=28, widen_factor=2), head=dict(in_channels=128))
