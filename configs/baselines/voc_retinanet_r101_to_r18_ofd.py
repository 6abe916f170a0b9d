"""RetinaNet, ResNet-101 to ResNet-18, by OFD alone."""
_base_ = './voc_retinanet_r18.py'
custom_imports = dict(imports=['mmlckd'], allow_failed_imports=False)
teacher_checkpoint = 'work_dirs/voc_retinanet_r101/epoch_4.pth'
prerequisites = {teacher_checkpoint: 'python tools/train.py configs/teachers/voc_retinanet_r101.py'}
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(config='configs/teachers/voc_retinanet_r101.py', checkpoint=teacher_checkpoint),
    taps='resnet_preact',
    losses=dict(ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-5, connectors=True, max_share=0.5)))
