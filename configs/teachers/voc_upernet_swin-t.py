"""UPerNet, Swin-T, on VOC12 + SBD, with mmseg's optimizer for Swin: the teacher of
voc_upernet_swin-t_to_deeplabv3plus_r18.
"""
_base_ = ['mmseg::_base_/models/upernet_swin.py', 'mmseg::_base_/datasets/pascal_voc12_aug.py',
          'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_40k.py']
checkpoint_file = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/pretrain/swin/swin_tiny_patch4_window7_224_20220317-1cdeb081.pth'
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file)),
    decode_head=dict(num_classes=21),
    auxiliary_head=dict(num_classes=21))
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(
        absolute_pos_embed=dict(decay_mult=0.), relative_position_bias_table=dict(decay_mult=0.),
        norm=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0., power=1., by_epoch=False, begin=1500, end=40000),
]
