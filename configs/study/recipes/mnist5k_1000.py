"""MNIST-5k at 16 px, 1,000 training images, 5 epochs: about as many iterations."""
_base_ = './mnist5k_100.py'
train_dataloader = dict(dataset=dict(ann_file='meta/train_1000.txt'))
train_cfg = dict(max_epochs=5, val_interval=1)
param_scheduler = dict(T_max=5)
