"""WRN-16-2 on CIFAR-100, alone: the student of setting c."""
_base_ = './cifar100_wrn16-4.py'
model = dict(backbone=dict(widen_factor=2), head=dict(in_channels=128))
