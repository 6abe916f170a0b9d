"""The detection demo's teacher: twice the width."""
_base_ = './digits_faster_rcnn_r18x16.py'
model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=48),
    rpn_head=dict(in_channels=48, feat_channels=48),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=48), bbox_head=dict(in_channels=48)))
