"""ResNet-50 to MobileNet on ImageNet, by logits alone."""
_base_ = './imagenet_resnet50_to_mobilenet_ofd.py'
model = dict(
    teacher=dict(norm_stats='running'),
    taps=None,
    losses=dict(_delete_=True, kd=dict(type='mmlckd.LogitsKDLoss', tau=1.0, taps=['head.fc'])))
