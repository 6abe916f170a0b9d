"""The segmentation demo's student, half as wide, alone: 400 of the training scenes, for 15 epochs."""
_base_ = './digits_deeplabv3plus_r18x32.py'
model = dict(
    backbone=dict(stem_channels=16, base_channels=16),
    decode_head=dict(in_channels=64, channels=32, c1_in_channels=16))
train_dataloader = dict(dataset=dict(
    _delete_=True,
    type='BaseSegDataset',
    data_root={{_base_.data_root}},
    metainfo={{_base_.scenes.metainfo}},
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/train.txt',
    pipeline={{_base_.train_pipeline}},
    indices=400))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', T_max=15, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=15, val_interval=15)
