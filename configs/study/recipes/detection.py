"""The detection demo's few scenes, and all losses that the study compares.

The teacher, the demo's own, saw all 1,000 scenes. The last 200 of them are for validation.
"""
_base_ = '../../demo/digits_faster_rcnn_r18x32_to_r18x16.py'
model = dict(
    teacher=dict(precision='bf16'),
    losses=dict(
        _delete_=True,
        ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-4, connectors=True),
        ofd_views={{_base_.model.losses.ofd}},
        kd_views=dict(type='mmlckd.LogitsKDLoss', tau=1.0, views='both', taps={{_base_.scores}}),
        lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True, max_share=0.2),
        lipschitz_local={{_base_.model.losses.local}}))
val_dataloader = dict(dataset=dict(ann_file='VOC2007/ImageSets/Main/trainval.txt', indices=-200))
