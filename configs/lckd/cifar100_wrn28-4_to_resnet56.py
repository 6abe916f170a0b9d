"""WRN-28-4 to ResNet-56 on CIFAR-100: the authors' setting d, OFD and their Lipschitz loss, alpha 1, and 2 from epoch
120 on.
"""
_base_ = '../baselines/cifar100_wrn28-4_to_resnet56_ofd.py'
model = dict(losses=dict(lipschitz=dict(
    type='mmlckd.LipschitzKDLoss', loss_weight=1 / 200, distance='absolute', connectors=True)))
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[100, 150], gamma=0.1),
    dict(type='MultiStepLR', by_epoch=True, milestones=[175], gamma=0.2),
]
custom_hooks = [
    dict(type='mmlckd.MomentumRestartHook', epochs=[100, 150, 175]),
    dict(type='mmlckd.LossWeightHook', loss='lipschitz', milestones=[120], weights=[2 / 200]),
]
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
