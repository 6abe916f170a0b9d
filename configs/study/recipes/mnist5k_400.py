"""MNIST-5k at 16 px, 400 training images, 10 epochs: as many iterations."""
_base_ = './mnist5k_100.py'
train_dataloader = dict(dataset=dict(ann_file='meta/train_400.txt'))
train_cfg = dict(max_epochs=10, val_interval=10)
param_scheduler = dict(T_max=10)
