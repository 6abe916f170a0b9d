"""The detection demo with 200 of its 1,000 training scenes, for 25 epochs, and all losses that the study compares.

As many iterations as the demo has. The teacher, the demo's own, saw all scenes. The last 200 scenes are for validation.
Logits are the scores of every anchor, at all levels.
"""
_base_ = '../../demo/digits_faster_rcnn_r18x32_to_r18x16.py'
scores = [dict(module='rpn_head.rpn_cls', call='all')]
model = dict(
    view=dict(type='mmlckd.MixedView'),
    losses=dict(
        ofd_views=dict(type='mmlckd.OFDLoss', loss_weight=1e-4, connectors=True, views='both'),
        kd_views=dict(type='mmlckd.LogitsKDLoss', tau=1.0, views='both', taps=scores),
        lipschitz_local=dict(type='mmlckd.LocalLipschitzKDLoss', center=False, taps=scores)))
train_dataloader = dict(dataset=dict(indices=200))
val_dataloader = dict(dataset=dict(ann_file='VOC2007/ImageSets/Main/trainval.txt', indices=-200))
train_cfg = dict(max_epochs=25, val_interval=25)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=150),
    dict(type='CosineAnnealingLR', T_max=25, by_epoch=True, convert_to_iter_based=True),
]
