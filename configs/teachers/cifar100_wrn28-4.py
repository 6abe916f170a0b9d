"""WRN-28-4 on CIFAR-100: the teacher of settings a to d, and the student of setting e alone."""
_base_ = '../baselines/cifar100_wrn16-4.py'
model = dict(backbone=dict(depth=28))
