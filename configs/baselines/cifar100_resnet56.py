"""ResNet-56 on CIFAR-100, alone: the student of setting d."""
_base_ = './cifar100_wrn16-4.py'
model = dict(backbone=dict(_delete_=True, type='mmlckd.CifarResNet', depth=56), head=dict(in_channels=64))
