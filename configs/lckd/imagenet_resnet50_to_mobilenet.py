"""ResNet-50 to MobileNet on ImageNet: the authors' setting, OFD and their Lipschitz loss, alpha 2000 over 10000 times a
batch of 96.

The authors sum the Lipschitz terms of their GPUs, of which they need two or more; this weight is that of one, whatever
the number.
"""
_base_ = '../baselines/imagenet_resnet50_to_mobilenet_ofd.py'
model = dict(losses=dict(lipschitz=dict(
    type='mmlckd.LipschitzKDLoss', loss_weight=2000 / (10000 * 96), distance='absolute', connectors=True)))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
