"""The detection demo's student under its teacher: OFD and the Lipschitz term on the backbone."""
_base_ = './digits_faster_rcnn_r18x16.py'
teacher_checkpoint = 'work_dirs/digits_faster_rcnn_r18x32/epoch_5.pth'
prerequisites = {teacher_checkpoint: 'python tools/train.py configs/demo/digits_faster_rcnn_r18x32.py'}
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(config='configs/demo/digits_faster_rcnn_r18x32.py', checkpoint=teacher_checkpoint),
    taps='resnet_preact',
    losses=dict(
        ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-4, connectors=True),
        lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True, max_share=0.2)))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
