"""The detection demo's student under its teacher: features distilled, with local Lipschitz guidance of the scores.

Both look at two views of each batch. Scores are those of every anchor, at all levels.
"""
_base_ = './digits_faster_rcnn_r18x16.py'
teacher_checkpoint = 'work_dirs/digits_faster_rcnn_r18x32/epoch_5.pth'
prerequisites = {teacher_checkpoint: 'python tools/train.py configs/demo/digits_faster_rcnn_r18x32.py'}
scores = [dict(module='rpn_head.rpn_cls', call='all')]
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(config='configs/demo/digits_faster_rcnn_r18x32.py', checkpoint=teacher_checkpoint),
    taps='resnet_preact',
    view=dict(type='mmlckd.MixedView'),
    losses=dict(
        ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-4, connectors=True, views='both'),
        local=dict(type='mmlckd.LocalLipschitzKDLoss', loss_weight=0.3, center=False, taps=scores)))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
