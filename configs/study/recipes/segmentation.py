"""The segmentation demo with 400 of its 6,000 training scenes, for 15 epochs, and all losses that the study compares.

As many iterations as the demo has. The teacher, the demo's own, saw all scenes. The last 200 are for validation. Logits
are those of every pixel.
"""
_base_ = '../../demo/digits_deeplabv3plus_r18x32_to_r18x16.py'
model = dict(
    view=dict(type='mmlckd.MixedView'),
    losses=dict(
        ofd_views=dict(
            type='mmlckd.OFDLoss', loss_weight=1e-4, map_weights=[1 / 4, 1 / 2, 1, 1, 1 / 16], connectors=True,
            views='both'),
        kd_views=dict(type='mmlckd.LogitsKDLoss', tau=1.0, views='both', taps=['decode_head.conv_seg']),
        lipschitz_local=dict(type='mmlckd.LocalLipschitzKDLoss', taps=['decode_head.conv_seg'])))
train_dataloader = dict(dataset=dict(
    _delete_=True,
    type='BaseSegDataset',
    data_root={{_base_.data_root}},
    metainfo={{_base_.scenes.metainfo}},
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/train.txt',
    pipeline={{_base_.train_pipeline}},
    indices=400))
val_dataloader = dict(dataset=dict(
    data_prefix=dict(seg_map_path='SegmentationClassAug'), ann_file='ImageSets/Segmentation/aug.txt', indices=-200))
train_cfg = dict(max_epochs=15, val_interval=15)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', T_max=15, by_epoch=True, convert_to_iter_based=True),
]
