"""Digits at 16 px, a third of the demo's cost: WRN-10-1 on 100 images of MNIST-5k."""
_base_ = '../../demo/mnist5k_wrn10-1.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=16),
    dict(type='RandomCrop', crop_size=16, padding=1),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=16), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(serialize_data=False, pipeline=train_pipeline))
# In batches of 50 the student is evaluated almost twice as fast as in batches of 200.
val_dataloader = dict(batch_size=50, dataset=dict(serialize_data=False, pipeline=test_pipeline))
test_dataloader = dict(batch_size=50, dataset=dict(serialize_data=False, pipeline=test_pipeline))
train_cfg = dict(max_epochs=40, val_interval=40)
param_scheduler = dict(T_max=40)
default_hooks = dict(checkpoint=dict(interval=20, max_keep_ckpts=1))
