"""ResNet-152 to ResNet-50 on ImageNet with this project's Lipschitz loss: logarithms of centred norms, at most a
fifth.
"""
_base_ = '../baselines/imagenet_resnet152_to_resnet50_ofd.py'
model = dict(losses=dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True, max_share=0.2)))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
