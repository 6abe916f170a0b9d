"""The demo's student under its teacher: features and logits distilled, Lipschitz profile matched."""
_base_ = './mnist5k_wrn10-1.py'
teacher_checkpoint = 'work_dirs/mnist5k_wrn16-2/epoch_5.pth'
prerequisites = {teacher_checkpoint: 'python tools/train.py configs/demo/mnist5k_wrn16-2.py'}
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(config='configs/demo/mnist5k_wrn16-2.py', checkpoint=teacher_checkpoint, norm_stats='batch'),
    taps=['backbone.layer2.0.bn1', 'backbone.layer3.0.bn1', 'backbone.bn'],
    losses=dict(
        lipschitz=dict(type='mmlckd.LipschitzKDLoss', connectors=True),
        ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-3, connectors=True),
        kd=dict(type='mmlckd.LogitsKDLoss', tau=4.0, taps=['head.fc'])))
default_hooks = dict(spectral_norm=dict(type='mmlckd.SpectralNormHook', interval=5))
