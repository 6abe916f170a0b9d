"""The segmentation demo's few scenes, and all losses that the study compares.

The teacher, the demo's own, saw all 6,000 scenes. The last 200 are for validation.
"""
_base_ = '../../demo/digits_deeplabv3plus_r18x32_to_r18x16.py'
model = dict(
    teacher=dict(precision='bf16'),
    losses=dict(
        _delete_=True,
        ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-4, map_weights=[1 / 4, 1 / 2, 1, 1, 1 / 16], connectors=True),
        ofd_views={{_base_.model.losses.ofd}},
        kd_views={{_base_.model.losses.kd}},
        lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True, max_share=0.2),
        lipschitz_local={{_base_.model.losses.local}}))
val_dataloader = dict(dataset=dict(
    data_prefix=dict(seg_map_path='SegmentationClassAug'), ann_file='ImageSets/Segmentation/aug.txt', indices=-200))
