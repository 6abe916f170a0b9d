"""RetinaNet, ResNet-101 to ResNet-18, by OFD alone; from layer2 on, since mmdet freezes layer1."""
_base_ = './voc_retinanet_r18.py'
custom_imports = dict(imports=['mmlckd'], allow_failed_imports=False)
teacher_checkpoint = 'work_dirs/voc_retinanet_r101/epoch_4.pth'
prerequisites = {teacher_checkpoint: 'python tools/train.py configs/teachers/voc_retinanet_r101.py'}
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(config='configs/teachers/voc_retinanet_r101.py', checkpoint=teacher_checkpoint),
    taps=dict(
        student=[dict(module='backbone.layer2.1.relu', io='input'), dict(module='backbone.layer3.1.relu', io='input'),
                 dict(module='backbone.layer4.1.relu', io='input')],
        teacher=[dict(module='backbone.layer2.3.relu', io='input'), dict(module='backbone.layer3.22.relu', io='input'),
                 dict(module='backbone.layer4.2.relu', io='input')]),
    losses=dict(ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-5, connectors=True, max_share=0.5)))
