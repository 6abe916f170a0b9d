"""The segmentation demo's teacher, DeepLabV3+ with the first three stages of a ResNet-18 of 32 channels, from scratch:
6,000 training scenes.
"""
_base_ = ['mmseg::_base_/models/deeplabv3plus_r50-d8.py', 'mmseg::_base_/default_runtime.py',
          '../_base_/datasets/digit_scenes_segmentation.py']
custom_imports = dict(imports=['mmlckd'], allow_failed_imports=False)
norm_cfg = dict(type='BN')
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(
        type='ResNet', depth=18, num_stages=3, stem_channels=32, base_channels=32, strides=(1, 2, 2),
        dilations=(1, 1, 1), out_indices=(0, 1, 2), zero_init_residual=False, norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=128, in_index=2, channels=64, c1_in_channels=32, c1_channels=16, dilations=(1, 2, 4, 6),
        num_classes=11,
        dropout_ratio=0.,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=[0.2] + [1.] * 10)),  # nine pixels in ten are background
    auxiliary_head=None)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.2, momentum=0.9, weight_decay=1e-4, nesterov=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', T_max=2, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=2)
val_cfg = {}
test_cfg = {}
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=25),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
log_processor = dict(by_epoch=True)
randomness = dict(seed=0)
