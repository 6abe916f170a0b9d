"""PyramidNet-200 (alpha 240, bottleneck) to PyramidNet-110 (alpha 84, basic) on CIFAR-100, by OFD alone: setting f."""
_base_ = './cifar100_pyramidnet200_to_wrn28-4_ofd.py'
model = dict(student=dict(
    backbone=dict(_delete_=True, type='mmlckd.PyramidNet', depth=110, alpha=84), head=dict(in_channels=100)))
