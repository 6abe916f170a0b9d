"""Teacher WRN-16-2 of the digits at 16 px: all 2,000 training images of MNIST-5k."""
_base_ = './student_16px.py'
model = dict(backbone=dict(depth=16, widen_factor=2), head=dict(in_channels=128))
train_dataloader = dict(batch_size=64, dataset=dict(ann_file='meta/train.txt'))
train_cfg = dict(max_epochs=10, val_interval=10)
param_scheduler = dict(T_max=10)
default_hooks = dict(checkpoint=dict(interval=1))
