"""ResNet-152 to ResNet-50 on ImageNet, by logits alone."""
_base_ = './imagenet_resnet152_to_resnet50_ofd.py'
model = dict(
    teacher=dict(norm_stats='running'),
    taps=None,
    losses=dict(_delete_=True, kd=dict(type='mmlckd.LogitsKDLoss', tau=1.0, taps=['head.fc'])))
