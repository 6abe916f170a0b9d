"""The segmentation demo's teacher: twice the width, and an epoch more."""
_base_ = './digits_deeplabv3plus_r18x16.py'
model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    decode_head=dict(in_channels=128, channels=64, c1_in_channels=32))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', T_max=2, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=2, val_interval=2)
