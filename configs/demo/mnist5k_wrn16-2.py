"""The demo's teacher, WRN-16-2: all 2,000 training images."""
_base_ = './mnist5k_wrn10-1.py'
model = dict(backbone=dict(depth=16, widen_factor=2), head=dict(in_channels=128))
train_dataloader = dict(batch_size=64, dataset=dict(ann_file='meta/train.txt'))
train_cfg = dict(max_epochs=5, val_interval=5)
param_scheduler = dict(T_max=5)
default_hooks = dict(checkpoint=dict(interval=1))
