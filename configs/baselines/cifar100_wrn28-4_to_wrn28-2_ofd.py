"""WRN-28-4 to WRN-28-2 on CIFAR-100, by OFD alone: setting b."""
_base_ = './cifar100_wrn28-4_to_wrn16-4_ofd.py'
model = dict(student=dict(backbone=dict(depth=28, widen_factor=2), head=dict(in_channels=128)))
