"""PyramidNet-110 (alpha 84, basic blocks) on CIFAR-100, alone: the student of setting f."""
_base_ = './cifar100_wrn16-4.py'
model = dict(backbone=dict(_delete_=True, type='mmlckd.PyramidNet', depth=110, alpha=84), head=dict(in_channels=100))
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=64)
