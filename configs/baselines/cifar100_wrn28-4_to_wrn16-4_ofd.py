"""WRN-28-4 to WRN-16-4 on CIFAR-100, by OFD alone: setting a."""
_base_ = './cifar100_wrn16-4.py'
teacher_checkpoint = 'work_dirs/cifar100_wrn28-4/epoch_200.pth'
prerequisites = {teacher_checkpoint: 'python tools/train.py configs/teachers/cifar100_wrn28-4.py'}
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(config='configs/teachers/cifar100_wrn28-4.py', checkpoint=teacher_checkpoint, norm_stats='batch'),
    taps=['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn'],
    losses=dict(ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-3, connectors=True)))
