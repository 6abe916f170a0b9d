"""WRN-28-4 to ResNet-56 on CIFAR-100, by OFD alone: setting d."""
_base_ = './cifar100_wrn28-4_to_wrn16-4_ofd.py'
model = dict(
    student=dict(backbone=dict(_delete_=True, type='mmlckd.CifarResNet', depth=56), head=dict(in_channels=64)),
    taps=dict(
        _delete_=True, student='resnet_preact',
        teacher=['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn']))
