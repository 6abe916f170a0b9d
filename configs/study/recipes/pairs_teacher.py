"""Teacher WRN-16-2 of pairs of digits: all 4,000 training images."""
_base_ = './pairs_student.py'
model = dict(backbone=dict(depth=16, widen_factor=2), head=dict(in_channels=128))
train_dataloader = dict(batch_size=50, dataset=dict(ann_file='meta/train.txt'))
train_cfg = dict(max_epochs=15, val_interval=15)
param_scheduler = dict(T_max=15)
default_hooks = dict(checkpoint=dict(interval=5))
