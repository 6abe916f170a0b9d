"""MNIST-5k, trained twice as long: what a second view costs, spent on epochs."""
_base_ = './guided_mnist5k_100.py'
train_cfg = dict(max_epochs=80)
param_scheduler = dict(T_max=80)
