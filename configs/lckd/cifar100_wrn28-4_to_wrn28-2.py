"""WRN-28-4 to WRN-28-2 on CIFAR-100: the authors' setting b, OFD and their Lipschitz loss, alpha 0.2."""
_base_ = '../baselines/cifar100_wrn28-4_to_wrn28-2_ofd.py'
model = dict(losses=dict(lipschitz=dict(
    type='mmlckd.LipschitzKDLoss', loss_weight=0.2 / 200, distance='absolute', connectors=True)))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
