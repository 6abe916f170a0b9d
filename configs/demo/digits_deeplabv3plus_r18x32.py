"""The segmentation demo's teacher: twice the width."""
_base_ = './digits_deeplabv3plus_r18x16.py'
model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    decode_head=dict(in_channels=256, channels=64, c1_in_channels=32))
