"""WRN-28-4 to WRN-16-4 on CIFAR-100: the authors' setting a, OFD and their Lipschitz loss, alpha 0.8, and 0.2 from
epoch 120 on.
"""
_base_ = '../baselines/cifar100_wrn28-4_to_wrn16-4_ofd.py'
model = dict(losses=dict(lipschitz=dict(
    type='mmlckd.LipschitzKDLoss', loss_weight=0.8 / 200, distance='absolute', connectors=True)))
custom_hooks = [
    dict(type='mmlckd.MomentumRestartHook', epochs=[100, 150]),
    dict(type='mmlckd.LossWeightHook', loss='lipschitz', milestones=[120], weights=[0.2 / 200]),
]
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
