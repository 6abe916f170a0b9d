"""The detection demo's student, half as wide, alone: 200 of the training scenes, for as many iterations."""
_base_ = './digits_faster_rcnn_r18x32.py'
model = dict(
    backbone=dict(stem_channels=16, base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=32), bbox_head=dict(in_channels=32)))
train_dataloader = dict(dataset=dict(indices=200))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=150),
    dict(type='CosineAnnealingLR', T_max=25, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=25, val_interval=25)
