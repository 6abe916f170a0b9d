"""WRN-28-4 to WRN-16-2 on CIFAR-100 with this project's Lipschitz loss: logarithms of centred norms, at most a
fifth.
"""
_base_ = '../baselines/cifar100_wrn28-4_to_wrn16-2_ofd.py'
model = dict(losses=dict(lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True, max_share=0.2)))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=50))
