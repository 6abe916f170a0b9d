"""PyramidNet-200 to PyramidNet-110 on CIFAR-100: the authors' setting f, OFD and their Lipschitz loss, alpha 1."""
_base_ = '../baselines/cifar100_pyramidnet200_to_pyramidnet110_ofd.py'
model = dict(losses=dict(lipschitz=dict(
    type='mmlckd.LipschitzKDLoss', loss_weight=1 / 200, distance='absolute', connectors=True)))
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[100, 150], gamma=0.1),
    dict(type='MultiStepLR', by_epoch=True, milestones=[175], gamma=0.2),
]
custom_hooks = [dict(type='mmlckd.MomentumRestartHook', epochs=[100, 150, 175])]
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
