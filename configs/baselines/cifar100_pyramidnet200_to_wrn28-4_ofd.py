"""PyramidNet-200 (alpha 240, bottleneck) to WRN-28-4 on CIFAR-100, by OFD alone: setting e."""
_base_ = '../teachers/cifar100_wrn28-4.py'
teacher_checkpoint = 'work_dirs/cifar100_pyramidnet200/epoch_200.pth'
prerequisites = {teacher_checkpoint: 'python tools/train.py configs/teachers/cifar100_pyramidnet200.py'}
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='configs/teachers/cifar100_pyramidnet200.py', checkpoint=teacher_checkpoint, norm_stats='batch'),
    taps=dict(
        student=['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn'],
        teacher=['backbone.layer2.0.bn2', 'backbone.layer3.0.bn2', 'backbone.bn']),
    losses=dict(ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-3, connectors=True)))
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=64)
